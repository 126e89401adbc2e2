/**
 * instrument.ts - the loader that makes plain accesses visible: `a[i]` in every module that an actor loads becomes a call.
 *
 * acorn parses, magic-string writes; lines stay where they are. What it leaves as it is: destructuring into elements,
 * `delete a[i]`, `a?.[i]`, `a[i] ||= v` and its like, calls `a[i](...)`, and code made by `eval`.
 *
 * Accesses on a line with a comment that says data_race are meant to race, as data_race() of the kernel says it: they are
 * seen, but nobody is told that they race.
 */
import * as nodeModule from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { AnyNode, AssignmentExpression, MemberExpression, Program, UpdateExpression } from 'acorn'
import { parse } from 'acorn'
import { full } from 'acorn-walk'
import MagicString from 'magic-string'
import { PLAIN_NAME } from './plain.js'

/** Our own modules must not be watched. */
const OWN = fileURLToPath(new URL('../..', import.meta.url))
const MEANT_TO_RACE = /\bdata_race\b/
/** A module that watches others says so in a comment, and is not watched itself. */
const UNWATCHED = /@unwatched\b/
const ARITHMETIC = /^(\*\*|>>>|<<|>>|[-+*/%&|^])=$/

/** instrument - the source with its element accesses as calls; null when there are none, or it cannot be parsed. */
export function instrument(source: string, sourceType: 'module' | 'script'): string | null {
  const quiet = new Set<number>()
  const program = parsed(source, sourceType, quiet)
  return program === null ? null : rewritten(source, program, quiet)
}

/** A module that has been instrumented, and all that it may import. */
export interface Instrumented {
  text: string
  imports: string[]
}

/** instrumentModule - as a loader would; null for what cannot be parsed, or may import what only a run shows. */
export function instrumentModule(source: string): Instrumented | null {
  const quiet = new Set<number>()
  const program = parsed(source, 'module', quiet)
  if (program === null || source.includes('import.meta.resolve')) return null
  const imports: string[] = []
  let known = true
  full(program, given => {
    const node = given as AnyNode
    if (!('source' in node) || node.source === null || node.source === undefined) return
    if (node.source.type === 'Literal' && typeof node.source.value === 'string') imports.push(node.source.value)
    else known = false
  })
  if (!known) return null
  const text = UNWATCHED.test(source) ? null : rewritten(source, program, quiet)
  return { text: text ?? source, imports }
}

/** `quiet`: is given the lines whose accesses are meant to race. */
function parsed(source: string, sourceType: 'module' | 'script', quiet: Set<number>): Program | null {
  try {
    return parse(source, {
      ecmaVersion: 'latest',
      sourceType,
      preserveParens: true,
      allowReturnOutsideFunction: sourceType === 'script',
      allowHashBang: true,
      locations: true,
      onComment: (_block, comment, _start, _end, from) => {
        if (MEANT_TO_RACE.test(comment)) quiet.add(from!.line)
      },
    })
  } catch {
    return null // the host will say what is wrong with it
  }
}

function rewritten(source: string, program: Program, quiet: ReadonlySet<number>): string | null {
  const text = new MagicString(source)
  const left = accessesLeftAlone(program)
  const counter = { n: 0 }
  const edits: AnyNode[] = []
  full(program, node => void edits.push(node as AnyNode))
  // From the outside in, so that what stands before a place stands in the right order.
  edits.sort((a, b) => a.start - b.start || b.end - a.end)
  for (const node of edits) {
    if (left.has(node)) continue
    const name = quiet.has(node.loc!.start.line) ? `${PLAIN_NAME}.quiet` : PLAIN_NAME
    if (node.type === 'MemberExpression' && isElement(node)) get(text, source, node, name)
    else if (node.type === 'AssignmentExpression' && isElement(node.left)) assign(text, source, node, name)
    else if (node.type === 'UpdateExpression' && isElement(node.argument)) count(text, source, node, name)
    else continue
    counter.n++
  }
  return counter.n === 0 ? null : text.toString()
}

/** `a[i]`, and neither `a['name']` nor `super[i]`. */
function isElement(node: AnyNode): node is MemberExpression {
  if (node.type !== 'MemberExpression' || !node.computed || node.object.type === 'Super') return false
  return !(node.property.type === 'Literal' && typeof node.property.value === 'string')
}

/** Accesses that are part of something else, which deals with them or leaves them as they are. */
function accessesLeftAlone(program: Program): Set<AnyNode> {
  const left = new Set<AnyNode>()
  const add = (node: AnyNode | null | undefined): void => {
    if (node === null || node === undefined) return
    left.add(node)
    if (node.type === 'ParenthesizedExpression') add(node.expression)
  }
  const pattern = (node: AnyNode | null): void => {
    if (node === null) return
    add(node)
    if (node.type === 'ArrayPattern') node.elements.forEach(pattern)
    else if (node.type === 'ObjectPattern')
      for (const p of node.properties) pattern(p.type === 'Property' ? (p.value as AnyNode) : p.argument)
    else if (node.type === 'AssignmentPattern') pattern(node.left)
    else if (node.type === 'RestElement') pattern(node.argument)
  }
  full(program, n => {
    const node = n as AnyNode
    switch (node.type) {
      case 'CallExpression':
      case 'NewExpression':
        return add(node.callee)
      case 'TaggedTemplateExpression':
        return add(node.tag)
      case 'AssignmentExpression':
        if (node.left.type !== 'MemberExpression') pattern(node.left)
        else if (node.operator === '=' || (ARITHMETIC.test(node.operator) && !suspends(node.right))) left.add(node.left)
        else {
          left.add(node)
          left.add(node.left)
        }
        return
      case 'UpdateExpression':
        add(node.argument)
        if (node.argument.type === 'ParenthesizedExpression') left.add(node)
        return
      case 'UnaryExpression':
        if (node.operator === 'delete') add(node.argument)
        return
      case 'ForInStatement':
      case 'ForOfStatement':
        if (node.left.type !== 'VariableDeclaration') pattern(node.left)
        return
      case 'ChainExpression':
        return chain(node.expression, left)
    }
  })
  return left
}

/** In `a?.[i].b[j]` all of it hangs on the question mark. */
function chain(node: AnyNode, left: Set<AnyNode>): void {
  left.add(node)
  if (node.type === 'MemberExpression') chain(node.object as AnyNode, left)
  else if (node.type === 'CallExpression') chain(node.callee as AnyNode, left)
}

/** Code with `await` or `yield` cannot move into a function. */
function suspends(node: AnyNode): boolean {
  const found = { it: false }
  full(node, n => {
    if (n.type === 'AwaitExpression' || n.type === 'YieldExpression') found.it = true
  })
  return found.it
}

/** What stands between two parts, replaced; its line breaks stay. */
function gap(text: MagicString, source: string, from: number, to: number, by: string): void {
  const breaks = source.slice(from, to).replace(/[^\n]/g, '')
  if (from === to) text.appendLeft(from, by)
  else text.update(from, to, by + breaks)
}

function get(text: MagicString, source: string, node: MemberExpression, name: string): void {
  text.appendLeft(node.start, `${name}.get(`)
  gap(text, source, node.object.end, node.property.start, ', ')
  gap(text, source, node.property.end, node.end, ')')
}

function assign(text: MagicString, source: string, node: AssignmentExpression, name: string): void {
  const left = node.left as MemberExpression
  const simple = node.operator === '='
  const operator = node.operator.slice(0, -1)
  text.appendLeft(node.start, `${name}.${simple ? 'set' : 'update'}(`)
  gap(text, source, left.object.end, left.property.start, ', ')
  gap(text, source, left.property.end, node.right.start, simple ? ', ' : `, __o => __o ${operator} (`)
  text.appendLeft(node.end, simple ? ')' : '))')
}

function count(text: MagicString, source: string, node: UpdateExpression, name: string): void {
  const element = node.argument as MemberExpression
  const delta = node.operator === '++' ? 1 : -1
  if (node.prefix) gap(text, source, node.start, element.start, `${name}.update(`)
  else text.appendLeft(node.start, `${name}.post(`)
  gap(text, source, element.object.end, element.property.start, ', ')
  gap(text, source, element.property.end, node.end, node.prefix ? `, __o => ${node.operator}__o)` : `, ${delta})`)
}

// ---- the loader -----------------------------------------------------------------------------------------------------------

interface LoadResult {
  format?: string | null
  source?: string | ArrayBuffer | NodeJS.TypedArray | null
  shortCircuit?: boolean
}
type NextLoad = (url: string, context?: object) => LoadResult
type Compile = (this: unknown, content: string, filename: string, ...rest: unknown[]) => unknown

/** isOurs - modules of the explorer and of the lab, which nobody watches. */
export function isOurs(url: string): boolean {
  if (!url.startsWith('file:')) return true
  const path = fileURLToPath(url)
  return path.startsWith(OWN) && /^(src[\\/](explore|lib|lab)|workers)[\\/]/.test(path.slice(OWN.length))
}

/** instrumented - what a loader got, rewritten where that can be done. */
export function instrumented(url: string, got: LoadResult): LoadResult {
  if (got.source === null || got.source === undefined || isOurs(url)) return got
  let source = typeof got.source === 'string' ? got.source : new TextDecoder().decode(got.source as Uint8Array)
  if (UNWATCHED.test(source)) return got
  let format = got.format ?? ''
  if (format.endsWith('-typescript')) {
    const strip = (nodeModule as { stripTypeScriptTypes?: (code: string) => string }).stripTypeScriptTypes
    if (strip === undefined) return got
    source = strip(source)
    format = format.replace('-typescript', '')
  }
  if (format !== 'module' && format !== 'commonjs') return got
  const text = instrument(source, format === 'module' ? 'module' : 'script')
  return text === null ? got : { ...got, format, source: text, shortCircuit: true }
}

/** instrumentModules - all that this thread loads from now on. */
export function instrumentModules(): void {
  const hooks = nodeModule as unknown as {
    registerHooks?: (hooks: { load: (url: string, context: object, next: NextLoad) => LoadResult }) => void
    register: (specifier: string, parent: string) => void
    Module: { prototype: { _compile: Compile } }
  }
  if (hooks.registerHooks !== undefined) {
    hooks.registerHooks({ load: (url, context, next) => instrumented(url, next(url, context)) })
    return
  }
  // Older hosts run hooks on a thread of their own, and not for `require`.
  hooks.register('./instrumentHooks.js', import.meta.url)
  const { prototype } = hooks.Module
  const compile = prototype._compile
  prototype._compile = function (content, filename, ...rest) {
    const ours = isOurs(pathToFileURL(filename).href)
    return compile.call(this, ours ? content : (instrument(content, 'script') ?? content), filename, ...rest)
  }
}
