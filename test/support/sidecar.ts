import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { type Config, loadConfig } from '../../src/config/config.ts'
import type { Loop } from '../../src/loop.ts'
import type { Emit, EventMap, EventName } from '../../src/observe/events.ts'
import { type Sidecar, type SidecarDeps, startSidecar } from '../../src/sidecar.ts'
import { until } from './until.ts'

const root = mkdtempSync(join(tmpdir(), 'certferry-sidecar-'))
after(() => rmSync(root, { recursive: true, force: true }))
export const never = new AbortController().signal

/** A folder of its own, and configs in it: `more` of each certificate by its name, as flow YAML. */
export function place() {
  const folder = mkdtempSync(join(root, 'p-'))
  return {
    folder,
    config: (certificates: Readonly<Record<string, string>>): Config => {
      const file = join(folder, 'c.yaml')
      const entries = Object.entries(certificates).map(
        ([name, more]) => `  - name: ${name}
    source: { kind: dev-ca, directory: ${folder}/ca, commonName: ${name}.example }
    outputs: [{ kind: pem, directory: ${folder}/${name} }]
${more && `    ${more}\n`}`,
      )
      writeFileSync(file, `certificates:\n${entries.join('')}`, { mode: 0o600 })
      return loadConfig(file, {})
    },
  }
}

export interface Running extends AsyncDisposable {
  readonly sidecar: Sidecar
  readonly events: readonly { readonly name: EventName; readonly event: EventMap[EventName] }[]
  loop(name: string): Loop
  /** The loop of this certificate once it is as wanted. */
  once(name: string, claim: string, isSo: (loop: Loop) => boolean): Promise<Loop>
}

export function run(config: Config, deps: Partial<SidecarDeps> = {}): Running {
  const events: { name: EventName; event: EventMap[EventName] }[] = []
  const emit: Emit = (name, event) => void events.push({ name, event })
  const sidecar = startSidecar(config, { clock: systemClock, emit, env: { PATH: process.env.PATH }, ...deps })
  const loop = (name: string) => sidecar.certificates.find((each) => each.cert.name === name) ?? assert.fail(name)
  return {
    sidecar,
    events,
    loop,
    once: (name, claim, isSo) => until(`${name} ${claim}`, () => isSo(loop(name)) && loop(name)),
    [Symbol.asyncDispose]: () => sidecar[Symbol.asyncDispose](),
  }
}

export const isDone = ({ report }: Loop) => report?.state.serving !== undefined && report.state.verification === 'none'
export const serialOf = ({ report }: Loop) => report?.state.serving?.serial
export const told = (folder: string) =>
  existsSync(join(folder, 'told')) ? readFileSync(join(folder, 'told'), 'utf8').trim().split('\n') : []
export const counter = (folder: string) =>
  `reload: [{ kind: exec, command: [sh, -c, 'echo $CERTFERRY_CERTIFICATES >> ${folder}/told'] }]`
