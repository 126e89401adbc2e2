/** types.ts - struct rcu_head: embedded in whatever is freed after a grace period. */
import { type Layout, layout, Struct, word } from '../abi/layout.js'
import type { Sym } from '../abi/symbol.js'

export class rcu_head extends Struct {
  /** Address of the next head. */
  declare next: number
  /** Gets the address of this head; container_of leads to the object. */
  declare func: Sym<(head: number) => void>
}
export const RCU_HEAD: Layout<rcu_head> = layout('rcu_head', rcu_head, { next: word, func: word })
