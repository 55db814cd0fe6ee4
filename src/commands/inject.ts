import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { SidecarError, systemCode } from '../errors.ts'
import { Defaults } from '../injector/annotations.ts'
import type { InjectorContext } from '../injector/inject.ts'
import { injectManifests } from '../injector/manifests.ts'
import { count, type Io, print } from './io.ts'

export interface InjectOptions {
  /** Paths; `-` is standard input. */
  readonly filename: readonly string[]
  readonly image: string
  /** Annotations without prefix, `vault-address=https://…`. */
  readonly default: readonly string[]
  readonly nativeSidecars: boolean
  readonly vaultAnnotations: boolean
}

/** Prints manifests with sidecars injected, as the webhook would. Throws INJECTION_REFUSED with all that is wrong; then nothing is printed. */
export async function inject(options: InjectOptions, io: Io): Promise<void> {
  const context = contextOf(options)
  const results = []
  for (const file of options.filename)
    results.push(injectManifests(await read(file), context, file === '-' ? 'standard input' : file))
  print(io, results.map(({ text: manifest }) => withNewline(manifest)).join('---\n'))
  for (const warning of results.flatMap(({ warnings }) => warnings)) io.stderr.write(`warning: ${warning}\n`)
  const injected = results.flatMap((each) => each.injected)
  io.stderr.write(
    injected.length > 0
      ? `certferry: ${count(injected.length, 'sidecar')} injected: ${injected.join(', ')}\n`
      : NOTHING,
  )
}

const NOTHING = 'certferry: nothing injected: no pod has an annotation such as certferry.io/certificate.web\n'

function contextOf({ image, nativeSidecars, vaultAnnotations, default: pairs }: InjectOptions): InjectorContext {
  const defaults = Object.fromEntries(pairs.map((pair) => splitPair(pair)))
  const { error } = Defaults.safeParse(defaults)
  if (error) {
    const [issue] = error.issues
    throw new SidecarError('USAGE', `--default ${issue?.path.join('.')}: ${issue?.message}`)
  }
  return { image, nativeSidecars, vaultAnnotations, ownNamespace: undefined, defaults }
}

function splitPair(pair: string): [string, string] {
  const at = pair.indexOf('=')
  if (at < 1)
    throw new SidecarError('USAGE', `--default ${pair}: write an annotation and its value, such as vault-role=web`)
  return [pair.slice(0, at), pair.slice(at + 1)]
}

async function read(file: string): Promise<string> {
  try {
    return file === '-' ? await text(process.stdin) : readFileSync(file, 'utf8')
  } catch (cause) {
    throw new SidecarError('USAGE', `cannot read ${file} (${systemCode(cause) ?? String(cause)})`, { cause })
  }
}

const withNewline = (manifest: string) => (manifest.endsWith('\n') ? manifest : `${manifest}\n`)
