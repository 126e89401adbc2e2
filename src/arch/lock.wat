;; lock.wat - the atomic operations of the machine on its own RAM: 3 to 5 ns a call where the Atomics builtins take 8 to 10.
;; Addresses are byte offsets, multiples of 4. Compiled by scripts/wat.mjs into lock.wasm.ts.
(module
  (import "m" "ram" (memory 1 65536 shared))
  (func (export "load") (param i32) (result i32) (i32.atomic.load (local.get 0)))
  (func (export "store") (param i32 i32) (i32.atomic.store (local.get 0) (local.get 1)))
  (func (export "xchg") (param i32 i32) (result i32) (i32.atomic.rmw.xchg (local.get 0) (local.get 1)))
  (func (export "cmpxchg") (param i32 i32 i32) (result i32)
    (i32.atomic.rmw.cmpxchg (local.get 0) (local.get 1) (local.get 2)))
  (func (export "fetch_add") (param i32 i32) (result i32) (i32.atomic.rmw.add (local.get 0) (local.get 1)))
  (func (export "fetch_or") (param i32 i32) (result i32) (i32.atomic.rmw.or (local.get 0) (local.get 1)))
  (func (export "fetch_and") (param i32 i32) (result i32) (i32.atomic.rmw.and (local.get 0) (local.get 1)))
)
