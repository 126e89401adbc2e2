/**
 * speculation.ts - plain reads that may be thrown away: what a seqlock's reader reads counts only if the count says so
 * afterwards. Until then it races with nobody; then it is looked at what was read.
 */

export interface Look {
  address: number
  bytes: number
  step: number
}

/** Speculation - of the actor on this thread. */
export class Speculation {
  #looks: Look[] = []
  /** Where each section that is open began among the looks; one may lie in another (of an interrupt). */
  #sections: number[] = []

  get active(): boolean {
    return this.#sections.length > 0
  }

  begin(): void {
    this.#sections.push(this.#looks.length)
  }

  add(address: number, bytes: number, step: number): void {
    this.#looks.push({ address, bytes, step })
  }

  /** The innermost section ends. @returns what was read in it and counts */
  end(valid: boolean): readonly Look[] {
    const looks = this.#looks.splice(this.#sections.pop() ?? 0)
    return valid ? looks : []
  }

  /** A run begins. */
  forget(): void {
    this.#looks = []
    this.#sections = []
  }
}
