import { Document, isMap, isPair, isScalar, isSeq, visit } from 'yaml'
import { asWritten, type Loss, type Migration, type Plain } from './migration.ts'

/** A line of comment is no longer than this, unless it quotes. */
const WIDTH = 110

/** The config as YAML: a comment at each place where the meaning differs, and at the end what has no equivalent. `origin` says where it comes from. */
export function renderMigration({ config, remarks, losses, covered, command }: Migration, origin: string): string {
  const document = new Document(config, { aliasDuplicateObjects: false, stringKeys: true })
  annotate(config, document.contents, (map, name) => remarks.get(map)?.get(name) ?? [])
  visit(document, {
    Scalar: (key, node) => {
      if (key !== 'key' && typeof node.value === 'string') node.value = asWritten(node.value)
    },
  })
  const body = document.toString({ lineWidth: 0, flowCollectionPadding: false })
  const head = [`From ${origin}. Read the comments: each marks a difference.`, `Run it with: ${command}`]
  const foot = [
    ...(losses.length > 0 ? ['', 'What has no equivalent:', ...losses.flatMap(tell)] : []),
    ...(covered.length > 0 ? ['', 'What needs no setting:', ...covered.flatMap(tell)] : []),
  ]
  return `${comment(head)}\n${body}${foot.length > 0 ? `${comment(foot)}\n` : ''}`
}

/** One line for a person at a terminal. */
export const lossLine = ({ what, line, why }: Loss): string => `line ${line}: ${what}: ${why}`

function tell(loss: Loss): string[] {
  const template = loss.template?.split('\n') ?? []
  while (template.at(-1)?.trim() === '') template.pop()
  return [
    '',
    ...wrap(lossLine(loss)).map((line, index) => `${index === 0 ? '- ' : '  '}${line}`),
    ...template.map((line) => `    | ${line}`),
  ]
}

type Remarks = (map: object, name: string) => readonly string[]

/** Walks the config and its YAML side by side. */
function annotate(plain: Plain | undefined, node: unknown, remarks: Remarks): void {
  if (typeof plain !== 'object') return
  if (isSeq(node) && Array.isArray(plain))
    plain.forEach((each, index) => void annotate(each, node.items[index], remarks))
  if (!isMap(node) || Array.isArray(plain)) return
  for (const pair of node.items) {
    if (!isPair(pair) || !isScalar(pair.key)) continue
    const name = String(pair.key.value)
    const texts = remarks(plain, name)
    if (texts.length > 0)
      pair.key.commentBefore = texts
        .flatMap(wrap)
        .map((line) => ` ${line}`)
        .join('\n')
    annotate(childOf(plain, name), pair.value, remarks)
  }
}

const childOf = (plain: object, name: string): Plain | undefined =>
  Object.entries(plain).find(([key]) => key === name)?.[1]

const comment = (lines: readonly string[]): string => lines.map((line) => (line === '' ? '#' : `# ${line}`)).join('\n')

/** Breaks at blanks; a text of one word stays whole. */
function wrap(text: string): string[] {
  const lines: string[] = []
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + word.length < WIDTH) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}
