import { isAbsolute, normalize, resolve } from 'node:path'
import type { Settings } from './settings.ts'

/** A value of the config that is written. */
export type Plain = string | number | boolean | readonly Plain[] | PlainMap
export interface PlainMap {
  [name: string]: Plain | undefined
}

/** What has no equivalent in certferry, and what to do instead; or what needs no setting, and why. */
export interface Loss {
  /** `cache`, or `template of /etc/app.conf`. */
  readonly what: string
  readonly line: number
  readonly why: string
  /** A template that was not translated, as it stands. */
  readonly template?: string
}

/** The config that says the same, as far as it can be said. */
export interface Migration {
  readonly config: PlainMap
  /** Comments, by the map and the name in it that they stand above. */
  readonly remarks: ReadonlyMap<object, ReadonlyMap<string, readonly string[]>>
  readonly losses: readonly Loss[]
  /** What certferry does without being told. */
  readonly covered: readonly Loss[]
  /** How certferry is to be called. */
  readonly command: string
}

/** What a migration needs to know of the machine. */
export interface Surroundings {
  /** Relative paths are taken from here. */
  readonly directory: string
  /** The text of a file, such as a template; undefined where it cannot be read. */
  readonly read: (path: string) => string | undefined
}

/** Collects a migration. */
export interface Draft {
  readonly remark: (map: object, name: string, text: string) => void
  readonly lose: (loss: Loss) => void
  readonly cover: (covered: Loss) => void
  readonly finish: (config: PlainMap, command: string) => Migration
}

export function createDraft(): Draft {
  const remarks = new Map<object, Map<string, string[]>>()
  const losses: Loss[] = []
  const covered: Loss[] = []
  const inOrder = (all: readonly Loss[]) => all.toSorted((a, b) => a.line - b.line)
  return {
    remark: (map, name, text) => {
      const of = remarks.get(map) ?? new Map<string, string[]>()
      remarks.set(map, of)
      const texts = of.get(name) ?? []
      if (!texts.includes(text)) of.set(name, [...texts, text])
    },
    lose: (loss) => void losses.push(loss),
    cover: (one) => void covered.push(one),
    finish: (config, command) => ({
      config,
      remarks,
      losses: inOrder(losses),
      covered: inOrder(covered),
      command,
    }),
  }
}

/** A map without the names whose value is undefined, so that what is not given is not written. */
export const given = (map: PlainMap): PlainMap =>
  Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined))

/** What the translation of each part works with. */
export interface Context {
  readonly draft: Draft
  readonly surroundings: Surroundings
  /** For messages: `Vault Agent`. */
  readonly tool: string
}

/** By the name of a setting, why there is none in certferry. */
export type Notes = Readonly<Record<string, string>>

/**
 * What becomes of the settings of a block that are not translated: `lost` have no equivalent, `covered` need none, and all others that nobody
 * has asked for are told as unknown. So nothing is passed over in silence. Comes last, after all that is translated was asked for.
 */
export function settleRest(
  settings: Settings,
  where: string,
  notes: { lost?: Notes; covered?: Notes },
  { draft, tool }: Context,
): void {
  const named = (name: string) => (where === '' ? name : `${where}.${name}`)
  for (const { name, line } of settings.unread()) {
    const covered = notes.covered?.[name]
    const why = notes.lost?.[name] ?? `is no setting of ${tool} that is known here`
    if (covered === undefined) draft.lose({ what: named(name), line, why })
    else draft.cover({ what: named(name), line, why: covered })
  }
}

/** certferry takes absolute paths only, since the working directory of a sidecar is nobody's concern. */
export function absolutePath(path: string, map: object, name: string, { draft, surroundings, tool }: Context): string {
  if (isAbsolute(path)) return normalize(path)
  draft.remark(map, name, `"${path}" was taken from the working directory of ${tool}; check that it is this one.`)
  return resolve(surroundings.directory, path)
}

/** Letters of nobody's alphabet, around what stands for a variable until the config is written. */
const [OPEN, CLOSE] = ['\uE000', '\uE001']

/** Stands for `${NAME}` in a text of the config; any other `${` in it is meant as it is. */
export const reference = (name: string, fallback?: string): string =>
  OPEN + name + (fallback === undefined ? '' : `:-${fallback}`) + CLOSE

/** A text as it is to stand in the config, where `$${` means `${`. */
export const asWritten = (text: string): string =>
  text
    .replaceAll('${', () => '$${')
    .replaceAll(OPEN, () => '${')
    .replaceAll(CLOSE, () => '}')
