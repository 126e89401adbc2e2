/** list.ts - struct list_head: circular doubly linked lists through nodes inside structs. Nodes are followed by address. */
import { RAM } from '../arch/ram.js'
import { type Layout, layout, Struct, word } from './layout.js'

const i32 = RAM.i32

export class list_head extends Struct {
  /** Addresses of nodes. */
  declare next: number
  declare prev: number
}
export const LIST: Layout<list_head> = layout('list_head', list_head, { next: word, prev: word })

export function INIT_LIST_HEAD(head: list_head): void {
  head.next = head.addr
  head.prev = head.addr
}

function link(node: number, prev: number, next: number): void {
  i32[(next >> 2) + 1] = node
  i32[node >> 2] = next
  i32[(node >> 2) + 1] = prev
  i32[prev >> 2] = node
}

/** list_add - first in the list. */
export function list_add(node: list_head, head: list_head): void {
  link(node.addr, head.addr, head.next)
}

/** list_add_tail - last in the list. */
export function list_add_tail(node: list_head, head: list_head): void {
  link(node.addr, head.prev, head.addr)
}

/** list_del - take a node out; it is left unlinked from everything (both pointers to itself). */
export function list_del_init(node: list_head): void {
  i32[(node.next >> 2) + 1] = node.prev
  i32[node.prev >> 2] = node.next
  node.next = node.addr
  node.prev = node.addr
}

export function list_move_tail(node: list_head, head: list_head): void {
  list_del_init(node)
  list_add_tail(node, head)
}

export function list_empty(head: list_head): boolean {
  return head.next === head.addr
}

/** list_next - the node after `addr`; the walk ends when it is the head's own address. */
export function list_next(addr: number): number {
  return i32[addr >> 2]
}

/** list_splice_init - put all of `from` at the front of `to`, and leave `from` empty. */
export function list_splice_init(from: list_head, to: list_head): void {
  if (list_empty(from)) return
  const first = from.next
  const last = from.prev
  const at = to.next
  i32[(first >> 2) + 1] = to.addr
  to.next = first
  i32[last >> 2] = at
  i32[(at >> 2) + 1] = last
  INIT_LIST_HEAD(from)
}
