import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { SidecarError, systemCode } from '../errors.ts'
import { TOOLS } from '../migrate/index.ts'
import { lossLine, renderMigration } from '../migrate/render.ts'
import { count, type Io, print } from './io.ts'

export interface MigrateOptions {
  /** Instead of standard output. */
  readonly output?: string | undefined
  /** Also where there is a file already. */
  readonly force: boolean
}

/** All has an equivalent; something has none, and is listed. */
const EXIT = { whole: 0, lossy: 1 }

/**
 * Writes the config of certferry that does what a config of another tool does, with a comment wherever the meaning differs. What has no
 * equivalent is listed on stderr. Resolves with the exit code. Throws USAGE where the file cannot be read, or would be overwritten.
 */
export async function migrate(tool: string, file: string, { output, force }: MigrateOptions, io: Io): Promise<number> {
  const translate = TOOLS[tool]
  if (!translate) throw new SidecarError('USAGE', `${tool} is none of ${Object.keys(TOOLS).join(', ')}`)
  if (output !== undefined && !force && existsSync(output)) throw alreadyThere(output)
  const surroundings = { directory: process.cwd(), read: (path: string) => readIfThere(path) }
  const migration = translate(read(file), file, surroundings)
  const text = renderMigration(migration, `${file} of ${tool}`)
  if (output === undefined) print(io, text)
  else write(output, text, force)
  const { losses } = migration
  for (const loss of losses) io.stderr.write(`${file}: ${lossLine(loss)}\n`)
  io.stderr.write(
    losses.length === 0
      ? 'certferry: all of it has an equivalent; the comments say where the meaning differs\n'
      : `certferry: ${count(losses.length, 'setting')} without an equivalent; the config is written without\n`,
  )
  return losses.length === 0 ? EXIT.whole : EXIT.lossy
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SidecarError('USAGE', `cannot read ${path} (${systemCode(cause) ?? String(cause)})`, { cause })
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

const alreadyThere = (path: string) => new SidecarError('USAGE', `${path} is there already; --force replaces it`)

/** In one rename, so that a certferry that watches the file never reads half of it. */
function write(path: string, text: string, force: boolean): void {
  const temporary = `${path}.${randomUUID()}`
  create(force ? temporary : path, text)
  if (force) renameSync(temporary, path)
}

function create(path: string, text: string): void {
  try {
    writeFileSync(path, text, { flag: 'wx', mode: 0o600 })
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') throw alreadyThere(path)
    throw new SidecarError('USAGE', `cannot write ${path} (${systemCode(cause) ?? String(cause)})`, { cause })
  }
}
