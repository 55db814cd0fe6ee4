import type { Clock } from '../clock.ts'
import { type Child, type ChildOptions, type Ended, type Environment, startChild } from './child.ts'
import type { Terminal } from './kin.ts'

/** The command to run, and how it is stopped. */
export type Supervised = ChildOptions

export interface SupervisorDeps {
  readonly clock: Clock
  /** That of this process; see `controllingTerminal`. */
  readonly terminal: Terminal | undefined
  /** Told what the operator should know, as a clause about the command. */
  readonly warn: (message: string) => void
}

/** Runs one command at a time. Disposing of it stops the command, and leaves nothing of it. */
export interface Supervisor extends AsyncDisposable {
  /** Starts the command with this environment, all of it. To be called once. That it cannot be executed is told by `ended`, as any other end. */
  start(env: Environment): Promise<void>
  /**
   * Stops the command and starts it with a new environment; resolves once it runs. What is asked for while a restart is under way becomes
   * one restart, with the environment that was given last. Once the command has ended for good, does nothing.
   */
  restart(env: Environment): Promise<void>
  /** To the command itself; to nobody between two of them, since the next one reads everything anew. */
  signal(name: NodeJS.Signals): void
  /** Stops the command for good; asked again, it tells the command again. Resolves as `ended`. */
  stop(): Promise<Ended>
  /** Resolves when the command ended by itself, could not be started, or was stopped for good, and when nothing is left of it. */
  readonly ended: Promise<Ended>
}

export function createSupervisor(supervised: Supervised, { clock, terminal, warn }: SupervisorDeps): Supervisor {
  const deps = { clock, sharesTerminal: terminal !== undefined, warn }
  const { promise: ended, resolve: settle } = Promise.withResolvers<Ended>()
  let child: Child | undefined
  /** The one that a restart is stopping. */
  let replaced: Child | undefined
  /** The environment of the restart that was asked for. */
  let next: Environment | undefined
  let restarting: Promise<void> | undefined
  let isOver = false

  async function begin(env: Environment): Promise<void> {
    const started = startChild(supervised, env, deps)
    child = started
    void started.ended.then(async () => {
      if (started === replaced) return
      isOver = true
      settle(await started.end())
    })
    await started.begun
  }

  async function replace(): Promise<void> {
    while (child && next && !isOver) {
      replaced = child
      const end = await child.end()
      if (isOver) return settle(end)
      const env = next
      next = undefined
      await begin(env)
    }
  }

  async function stop(): Promise<Ended> {
    isOver = true
    if (child) settle(await child.end())
    else settle({ code: 0, why: 'was not started' })
    return ended
  }

  return {
    start: async (env) => {
      if (!isOver) await begin(env)
    },
    restart: (env) => {
      next = env
      restarting ??= replace().finally(() => {
        restarting = undefined
      })
      return restarting
    },
    signal: (name) => child?.signal(name),
    stop,
    ended,
    [Symbol.asyncDispose]: async () => {
      await stop()
    },
  }
}
