/** hlist.ts - struct hlist_head: lists with one word of head, for hash tables. Nodes and slots are followed by address. */
import { RAM } from '../arch/ram.js'
import { type Layout, layout, Struct, word } from './layout.js'

const i32 = RAM.i32

export class hlist_node extends Struct {
  /** Address of the next node, 0: none. */
  declare next: number
  /** Address of the word that names this node, 0: it is on no list. */
  declare pprev: number
}
export const HLIST: Layout<hlist_node> = layout('hlist_node', hlist_node, { next: word, pprev: word })

export function INIT_HLIST_NODE(n: hlist_node): void {
  n.next = 0
  n.pprev = 0
}
export function hlist_unhashed(n: hlist_node): boolean {
  return n.pprev === 0
}
/** hlist_add_head - `head`: address of the list's word. */
export function hlist_add_head(n: hlist_node, head: number): void {
  const first = i32[head >> 2]
  n.next = first
  if (first !== 0) i32[(first >> 2) + 1] = n.addr
  i32[head >> 2] = n.addr
  n.pprev = head
}
/** hlist_del_init - off its list. */
export function hlist_del_init(n: hlist_node): void {
  if (n.pprev === 0) return
  i32[n.pprev >> 2] = n.next
  if (n.next !== 0) i32[(n.next >> 2) + 1] = n.pprev
  INIT_HLIST_NODE(n)
}
