import { Timeout } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { commandLine, environment, run } from './command.ts'
import { Argv } from './options.ts'
import type { Reloader, ReloaderDeps } from './reloader.ts'

/** Options that every kind of reloader takes. */
export const testOptions = {
  test: Argv.optional().meta({
    description: "The target's own configuration test, such as [nginx, -t]; runs before new files become visible",
  }),
  testTimeout: Timeout.prefault('30s').meta({ description: 'After this the test counts as failed' }),
}

interface TestOptions {
  readonly test?: Argv | undefined
  readonly testTimeout: number
}

/** A reloader with the configuration test of its target. */
export const withTest = (
  { test: argv, testTimeout }: TestOptions,
  { clock, env }: ReloaderDeps,
  reloader: Omit<Reloader, 'test' | 'testCommand'>,
): Reloader => ({
  ...reloader,
  testCommand: argv && commandLine(argv),
  test: async (context, signal) => {
    if (!argv) return
    const ended = await run({ argv, timeoutMs: testTimeout, env: environment(env, {}, context) }, clock, signal)
    if (ended.how === 'ok') return
    throw new SidecarError(
      'TARGET_CONFIG_BROKEN',
      `the configuration test "${commandLine(argv)}" ${ended.why}${ended.output && `: ${ended.output}`}`,
    )
  },
})
