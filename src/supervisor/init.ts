import { locate } from '../reloaders/command.ts'

/** Of the process: what it takes to become another program. */
export interface Self {
  readonly pid: number
  readonly env: Record<string, string | undefined>
  readonly execve?: NodeJS.Process['execve']
}

/** Variables that shells put into the environment by themselves, and where it is noted which of them were not there before. */
const SET_BY_SHELLS = ['PWD', 'OLDPWD', 'SHLVL']
const NOTE = 'CERTFERRY_NOT_SET'

/**
 * The first process of a container inherits the orphans of all others, and must wait for them, or they stay as zombies. Node waits only for
 * the children it knows. So a first process becomes the shell, which waits for any, and which starts this program again (`command`) beneath
 * it, passes signals on and ends with its exit code. Returns where this process is not the first; or where it is, and there is no shell, with
 * what to warn of. To be called before anything is open or under way.
 */
export async function standBeneathInit(command: readonly string[], self: Self): Promise<string | undefined> {
  const { env, pid, execve } = self
  if (pid !== 1) {
    const foreign = env[NOTE]?.split(' ') ?? []
    for (const name of SET_BY_SHELLS) if (foreign.includes(name)) delete env[name]
    delete env[NOTE]
    return undefined
  }
  const shell = await locate('sh', `${env.PATH ?? ''}:/bin:/usr/bin`)
  if (shell === undefined || execve === undefined) return NO_INIT
  const given = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
  const note = SET_BY_SHELLS.filter((name) => env[name] === undefined).join(' ')
  const asIs: Record<string, string> = { ...Object.fromEntries(given), [NOTE]: note }
  return execve.call(self, shell, ['sh', '-c', INIT, 'certferry-init', ...command], asIs)
}

const NO_INIT =
  'certferry is the first process of this container, which has no sh to wait for orphans: those of the command stay as zombies. Start the container with an init: docker run --init, shareProcessNamespace: true, or tini before certferry'

/**
 * What a shell starts in the background has /dev/null as its input unless it is told otherwise. Signals that come before there is somebody
 * to tell are kept. `wait` returns with each signal; and if the program ended at that very moment, the second `wait` knows its exit code.
 */
const INIT = `
exec 3<&0
pid= early=
tell() { if [ "$pid" ]; then kill -s "$1" "$pid" 2>/dev/null; else early="$early $1"; fi; }
for name in HUP INT QUIT TERM USR1 USR2 WINCH TSTP CONT TTIN TTOU; do trap "tell $name" "$name"; done
"$@" <&3 3<&- &
pid=$!
exec 3<&- </dev/null
for name in $early; do tell "$name"; done
while wait "$pid"; code=$?; kill -0 "$pid" 2>/dev/null; do :; done
wait "$pid" 2>/dev/null; known=$?
[ "$known" = 127 ] || code=$known
exit "$code"
`
