import type { Bundle } from '../core/bundle.ts'
import type { Content, Instant } from '../core/content.ts'
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
  /** What it holds; `certificate` and `key` are what nginx-include names, `combined` serves as both, and what a secret becomes is `secret`. `ca`, `chain` and the OCSP response are neither. */
  readonly role: 'certificate' | 'key' | 'ca' | 'chain' | 'staple' | 'combined' | 'secret'
}

/** Which files a bundle, or the values of a secret, become in one directory. */
export interface Output<C extends Content = Bundle> {
  /** Absolute path. */
  readonly directory: string
  readonly layout: Layout
  /** The directory as the reader sees it, where the volume is mounted elsewhere there; for paths inside files. */
  readonly seenAs: string
  /** Names of the files `render` gives, known without a bundle, so that a clash is found in the config. */
  readonly names: readonly string[]
  /** True where one of them is the OCSP response of the certificate, written as soon as there is one. */
  readonly staples?: boolean
  /** True where somebody else than this process's user may read a file: a directory made for it lets others pass through. */
  readonly isShared?: boolean
  /** Loads what `render` needs; awaited before the first. Throws CONFIG_INVALID and the like for options that cannot be used. */
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
  const byDirectory = Map.groupBy(outputs, (output) => output.directory)
  return {
    bundle,
    directories: [...byDirectory].map(([directory, group]) => ({
      directory,
      layout: group[0]?.layout ?? 'generation',
      seenAs: group[0]?.seenAs ?? directory,
      files: group.flatMap((output) => output.render(bundle)),
    })),
  }
}

/** Names that readers find in the directory. */
export const visibleNames = (layout: Layout, names: readonly string[]): string[] =>
  layout === 'nginx-include' ? [...names, INCLUDE_FILE] : [...names]

/** Overwrites the keys of rendered files, which are of no use once they are on disk. */
export function wipeKeys(files: readonly OutputFile[]): void {
  for (const { role, content } of files) if (role === 'key' || role === 'combined' || role === 'secret') content.fill(0)
}
