import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { EVENTS, type EventName } from '../../src/observe/events.ts'
import { code, GENERATED, table } from './table.ts'

/** As `fields.ts` writes them. */
const WRITTEN_AS: Readonly<Record<string, string>> = { nextAt: 'next', code: 'reason', message: 'detail' }

export function renderEvents(): string {
  const fields = fieldsByEvent()
  const names = Object.keys(EVENTS).filter((name): name is EventName => Object.hasOwn(EVENTS, name))
  return `${GENERATED}

# Events

What certferry tells. Each event is a line of the log, with \`time\`, \`level\`, \`event\`, the fields below and the constant text as \`msg\`;
\`log.level\` leaves out the lesser ones. Times are ISO 8601 in UTC, fields ending in \`Ms\` are milliseconds, \`reason\` is a code of
[errors.md](errors.md) in lower case (in \`control.request\` it is what the caller gave), \`detail\` says what failed with which value.
"Or more": the payload decides, an expired certificate and a refused request are worse than news.

Events marked as audited are lines of the audit log as well, when \`audit.file\` is configured. There each line has a number (\`seq\`),
the hash of the line before (\`prev\`) and its own (\`hash\`); \`certferry audit verify\` follows the chain. After a crash or a full disk an
\`audit.resumed\` line says how many lines were \`lost\`, and names what was left of a torn one by its SHA-256 (\`torn\`). The chain shows
changes to the file; who may write the file may also write it anew as a whole, so keep a copy, or its last hash, elsewhere.

${table(
  ['Event', 'Level', 'Text', 'Fields', 'Audited'],
  names.map((name) => [
    code(name),
    EVENTS[name].level + (EVENTS[name].escalate ? ' or more' : ''),
    EVENTS[name].message,
    (fields.get(name) ?? []).map((field) => code(WRITTEN_AS[field] ?? field)).join(', '),
    EVENTS[name].audit ? 'yes' : '',
  ]),
)}
`
}

/** Types are gone at run time, so the names of the fields are read from the source of the event map. */
function fieldsByEvent(): Map<string, string[]> {
  const source = readFileSync(join(import.meta.dirname, '../../src/observe/events.ts'), 'utf8')
  const map = /export interface EventMap \{\n([\s\S]*?)\n\}/.exec(source)?.[1] ?? ''
  const entries = map.matchAll(/^ {2}'([a-z.-]+)': ([\s\S]*?)(?=\n {2}'|(?![\s\S]))/gm)
  // What events have in common stands in interfaces beside the map.
  const sharedFields = (name: string) =>
    fieldNames(new RegExp(`interface ${name} \\{\\n([\\s\\S]*?)\\n\\}`).exec(source)?.[1] ?? '')
  return new Map(
    [...entries].map(([, name = '', type = '']) => [
      name,
      [...[...type.matchAll(/\b[A-Z]\w+\b(?= &|$)/g)].flatMap(([shared]) => sharedFields(shared)), ...fieldNames(type)],
    ]),
  )
}

const fieldNames = (type: string) => [...type.matchAll(/(\w+)\??: /g)].map(([, field = '']) => field)
