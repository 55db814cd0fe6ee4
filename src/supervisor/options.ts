import { constants } from 'node:os'
import * as z from 'zod'
import { nextRun } from '../core/renewal.ts'
import { Duration, Timeout } from '../core/units.ts'
import { FieldPath } from '../core/values.ts'
import { MountPath, PathSegment } from '../vault/paths.ts'

const SignalName = z.string().refine((name): name is NodeJS.Signals => Object.hasOwn(constants.signals, name), {
  error: 'must be a signal such as SIGTERM',
})

const Window = z
  .strictObject({
    cron: z.string().describe('Cron pattern: it opens at each run'),
    timezone: z.string().optional().describe('IANA time zone of cron, UTC by default'),
    duration: Duration.describe('How long it stays open'),
  })
  .check(({ value: { cron, timezone }, issues }) => {
    const trouble = cronTrouble(cron, timezone)
    if (trouble) issues.push({ code: 'custom', input: cron, path: ['cron'], message: trouble })
  })

function cronTrouble(cron: string, timezone = 'UTC'): string | undefined {
  try {
    return nextRun(cron, timezone, Date.now()) === undefined ? 'never runs' : undefined
  } catch (error) {
    return `is no cron pattern such as '0 3 * * *', or not in that time zone: ${error instanceof Error ? error.message : error}`
  }
}

/** Config: what `certferry exec` makes of its command. */
export const ExecOptions = z.strictObject({
  env: z
    .record(z.string().regex(/^[A-Za-z_]\w*$/, 'must be a name of letters, digits and _'), FieldPath)
    .prefault({})
    .describe('Variables of the command: SECRET.VALUE.FIELD, such as app.db.password'),
  onChange: z
    .enum(['restart', 'signal', 'nothing'])
    .default('restart')
    .describe('What becomes of the command when a secret or a certificate has changed'),
  signal: SignalName.default('SIGHUP').describe('Which signal onChange: signal sends; the environment stays as it was'),
  stopSignal: SignalName.default('SIGTERM').describe('How the command is asked to end'),
  stopTimeout: Timeout.prefault('30s').describe('After this it is killed, and all it started'),
  splay: Duration.optional().describe(
    'A change is told up to this much later, by chance, so that a fleet does not restart at once',
  ),
  window: Window.optional().describe('Changes are told to the command only while it is open'),
  transit: z
    .strictObject({
      mount: MountPath.prefault('transit').describe('Where the transit engine is mounted'),
      key: PathSegment.describe('Name of the key'),
    })
    .optional()
    .describe('What decrypts references such as vault:v1:…'),
})
export type ExecOptions = z.output<typeof ExecOptions>
