import * as z from 'zod'
import { Timeout } from '../core/units.ts'
import { type ErrorCode, SidecarError } from '../errors.ts'
import { commandLine, type Ended, environment, locate, run } from './command.ts'
import { testOptions, withTest } from './config-test.ts'
import { Argv, SecretText } from './options.ts'
import { defineReloader } from './reloader.ts'

export const exec = defineReloader({
  kind: 'exec',
  summary: 'Runs a command, such as nginx -s reload.',
  options: z.strictObject({
    command: Argv.meta({
      description: 'A program (absolute path, or a name found in PATH) and its arguments; no shell is run',
    }),
    timeout: Timeout.prefault('30s').meta({ description: 'After this the command and all it started are killed' }),
    env: z
      .record(z.string().regex(/^[A-Za-z_]\w*$/, 'must be a name of letters, digits and _'), SecretText)
      .prefault({})
      .meta({ description: 'Variables for the command, besides PATH, LANG, LC_ALL, TZ and CERTFERRY_*' }),
    ...testOptions,
  }),
  create: (options, deps) => {
    const { command, timeout } = options
    const line = commandLine(command)
    const given = Object.fromEntries(Object.entries(options.env).map(([name, secret]) => [name, secret.reveal()]))
    return withTest(options, deps, {
      kind: 'exec',
      description: `command "${line}"`,
      inspect: async () => {
        const program = await locate(command[0], given.PATH ?? deps.env.PATH)
        if (program) return `run "${line}" (${program})`
        throw new SidecarError('RELOAD_TARGET_MISSING', `reload command "${line}": no program ${command[0]} to execute`)
      },
      reload: async (context, signal) => {
        const env = environment(deps.env, given, context)
        const ended = await run(
          { argv: command, timeoutMs: timeout, env, secrets: Object.values(options.env) },
          deps.clock,
          signal,
        )
        if (ended.how === 'ok') return
        const output = ended.output && `; it printed: ${ended.output}`
        throw new SidecarError(FAILURES[ended.how], `reload command "${line}" ${ended.why}${output}`)
      },
    })
  },
})

/** A command that never ran is no refusal by the target. */
const FAILURES: Record<Exclude<Ended['how'], 'ok'>, ErrorCode> = {
  'not-started': 'RELOAD_TARGET_MISSING',
  failed: 'RELOAD_FAILED',
  timeout: 'RELOAD_TIMEOUT',
}
