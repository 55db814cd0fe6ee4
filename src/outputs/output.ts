import { hash } from 'node:crypto'
import type { Bundle } from '../core/bundle.ts'
import type { Content, Instant } from '../core/content.ts'
import type { KeyAlgorithm } from '../core/key.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { definer } from '../registry.ts'

/** How the files of one directory reach their readers; `layout.ts` explains each. */
export const LAYOUTS = ['generation', 'nginx-include', 'flat'] as const
export type Layout = (typeof LAYOUTS)[number]

/** The file that layout nginx-include adds to a set: it names certificate and key of one generation. No output may use the name. */
export const INCLUDE_FILE = 'tls.conf'

/** A file of a set, complete in memory before anything touches the disk. */
export interface OutputFile {
  /** Name within the directory, one path segment. */
  readonly name: string
  /** The store overwrites the content of files that hold a key once it is done with them; so a rendered set serves once. */
  readonly content: Buffer
  /** Permission bits, such as 0o600; set before the file becomes visible. */
  readonly mode: number
  /** Owner to give it, where it is not this process's own. */
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  /** Who may read it besides, such as `u:990:r`. */
  readonly acl?: readonly string[] | undefined
  /** Where readers find it, if that is another directory: there it is a link into the set of this one. */
  readonly shown?: Shown | undefined
  /**
   * What it holds; `certificate` and `key` are PEM that nginx-include names, `combined` serves as both, and what a secret becomes is `secret`.
   * `ca`, `chain` and the OCSP response (`staple`) are neither. Other forms than PEM, with the key in it or without, are `key-form` and `certificate-form`.
   */
  readonly role:
    | 'certificate'
    | 'key'
    | 'ca'
    | 'chain'
    | 'staple'
    | 'combined'
    | 'secret'
    | 'key-form'
    | 'certificate-form'
}

/** A name in another directory than that of the set. */
export interface Shown {
  readonly directory: string
  readonly name: string
}

/** Which files a bundle, or the values of a secret, become in one directory. */
export interface Output<C extends Content = Bundle> {
  /** Absolute path. */
  readonly directory: string
  readonly layout: Layout
  /** Directory of another output of the certificate, whose set these files are part of: one rename swaps both. */
  readonly oneSetWith?: string | undefined
  /** The directory as the reader sees it, where the volume is mounted elsewhere there; for paths inside files. */
  readonly seenAs: string
  /** Names of the files `render` gives, known without a bundle, so that a clash is found in the config. */
  readonly names: readonly string[]
  /** True where one of them is the OCSP response of the certificate, written as soon as there is one. */
  readonly staples?: boolean
  /** True where somebody else than this process's user may read a file: a directory made for it lets others pass through. */
  readonly isShared?: boolean
  /** What of it a server of PEM can be given: layout nginx-include needs both in a directory. */
  readonly serves?: readonly ('certificate' | 'key')[]
  /** Why a key of this algorithm cannot be written in the forms asked for. */
  misfit?(algorithm: KeyAlgorithm): string | undefined
  /** Loads and checks what `render` needs; awaited before the first, and before each new content is asked for. Throws CONFIG_INVALID and the like for options that cannot be used. */
  prepare?(): Promise<void>
  /** Pure: same bundle, same files. */
  render(bundle: C): readonly OutputFile[]
}

/** A copy elsewhere than in files, such as in an object of an API. The files beside it hold the state. */
export interface RemoteOutput<C extends Content = Bundle> {
  /** For people, and to find two that want the same: `Secret shop/web-tls`. */
  readonly place: string
  /** What is there, for `plan` and `doctor`: resolves with a sentence, throws what `publish` would. Changes nothing. */
  inspect(signal: AbortSignal): Promise<string>
  /**
   * Sees to it that this bundle is there: all of it or nothing, and without a change where it is already. Safe to repeat. Resolves with what
   * was wrong, if anything was. Throws FOREIGN_OBJECT, KUBERNETES_*.
   */
  publish(bundle: C, signal: AbortSignal): Promise<'missing' | 'content' | undefined>
}

export type AnyOutput<C extends Content = Bundle> = Output<C> | RemoteOutput<C>

export interface OutputDeps {
  /** Name of the certificate. */
  readonly certificate: string
  readonly now: () => Instant
  /** Throws CONFIG_INVALID outside a cluster. Not called before something is asked. */
  readonly kubernetes: () => Kubernetes
}

export const defineOutput = definer<OutputDeps, AnyOutput>()

export const isRemote = <C extends Content>(output: AnyOutput<C>): output is RemoteOutput<C> => 'publish' in output
export const writesFiles = <C extends Content>(output: AnyOutput<C>): output is Output<C> => !isRemote(output)

/** All files a bundle becomes, by directory. Outputs that share a directory are one set in it. */
export interface FileSet<C extends Content = Bundle> {
  readonly bundle: C
  readonly directories: readonly DirectorySet[]
}

export interface DirectorySet {
  readonly directory: string
  readonly layout: Layout
  readonly seenAs: string
  readonly files: readonly OutputFile[]
}

/** Pure. The order of directories is the order of the config: the first one also keeps the state. */
export function render<C extends Content>(outputs: readonly Output<C>[], bundle: C): FileSet<C> {
  const rendered: OutputFile[] = []
  const filesOf = (output: Output<C>) => {
    const files = output.render(bundle).map((file) => placed(output, file))
    rendered.push(...files)
    return files
  }
  try {
    const directories = setsOf(outputs).map(({ directory, own, all }) => ({
      directory,
      layout: own[0]?.layout ?? 'generation',
      seenAs: own[0]?.seenAs ?? directory,
      files: all.flatMap(filesOf),
    }))
    return { bundle, directories }
  } catch (error) {
    wipeKeys(rendered)
    throw error
  }
}

/** Outputs by the directory that holds their set: `own` write into it, the others only show there what is in it. */
export function setsOf<O extends Pick<Output<never>, 'directory' | 'oneSetWith'>>(
  outputs: readonly O[],
): { readonly directory: string; readonly own: readonly O[]; readonly all: readonly O[] }[] {
  return [...Map.groupBy(outputs, ({ directory, oneSetWith }) => oneSetWith ?? directory)].map(([directory, all]) => ({
    directory,
    own: all.filter(({ oneSetWith }) => oneSetWith === undefined),
    all,
  }))
}

/** Under a name of its own in the set, where it is shown elsewhere. */
function placed({ directory, oneSetWith }: Pick<Output, 'directory' | 'oneSetWith'>, file: OutputFile): OutputFile {
  if (oneSetWith === undefined) return file
  const mark = hash('sha256', directory).slice(0, 8)
  return { ...file, name: `..at-${mark}-${file.name}`, shown: { directory, name: file.name } }
}

/** Names that readers find in the directory. */
export const visibleNames = (layout: Layout, names: readonly string[]): string[] =>
  layout === 'nginx-include' ? [...names, INCLUDE_FILE] : [...names]

/** Encrypted ones as well: their password lies on the same machine. */
const KEY_ROLES: ReadonlySet<OutputFile['role']> = new Set(['key', 'combined', 'secret', 'key-form'])

/** Overwrites the keys of rendered files, which are of no use once they are on disk. */
export function wipeKeys(files: readonly OutputFile[]): void {
  for (const { role, content } of files) if (KEY_ROLES.has(role)) content.fill(0)
}
