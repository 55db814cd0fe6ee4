import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Certferry, commandLine, type StartOptions, startCertferry } from './certferry.ts'

/** A folder with a config whose certificates come from a CA beside it: all that certferry needs where Vault does not matter. */
export interface Project extends AsyncDisposable {
  readonly folder: string
  readonly configFile: string
  readonly socket: string
  /** Writes the config: with these top-level sections besides `admin`, which may be given too. */
  configure(config: object): void
  /** Writes the config as it stands. */
  write(text: string | Buffer): void
  certificate(name: string, more?: object): object
  start(options?: Partial<StartOptions>): Certferry
  /** Runs another command to its end. */
  run(...args: readonly string[]): Promise<CommandResult>
}

export interface CommandResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export async function createProject({ program }: { readonly program: string }): Promise<Project> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-project-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  // Also when the tests end without disposing of it.
  process.once('exit', remove)
  const configFile = join(folder, 'config.yaml')
  const socket = join(folder, 'control.sock')
  const write = (text: string | Buffer) => writeFileSync(configFile, text, { mode: 0o600 })
  return {
    folder,
    configFile,
    socket,
    write,
    configure: (config) => write(JSON.stringify({ admin: { listen: '127.0.0.1:0', socket }, ...config }, undefined, 2)),
    certificate: (name, more = {}) => ({
      name,
      source: { kind: 'dev-ca', directory: join(folder, 'ca'), commonName: `${name}.example`, ttl: '1h' },
      outputs: [{ kind: 'pem', directory: join(folder, name) }],
      ...more,
    }),
    start: (options) => startCertferry({ configFile, socket, program, ...options }),
    run: (...args) => run(program, args),
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', remove)
      remove()
    },
  }
}

/** In an environment that knows no Vault. */
async function run(program: string, args: readonly string[]): Promise<CommandResult> {
  const child = spawn(process.execPath, commandLine(program, ...args), {
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const texts = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (texts.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (texts.stderr += text))
  const [code] = await once(child, 'close')
  return { code, ...texts }
}
