import { setTimeout as sleep } from 'node:timers/promises'
import { statusJson } from '../observe/status.ts'
import { renderStatus } from '../observe/status-table.ts'
import { type Io, print } from './io.ts'
import { connectTo, type SocketOptions } from './socket.ts'

const PERIOD_MS = 1_000
const CLEAR = '\u001b[H\u001b[J'

/** What the running sidecar knows, as a table or JSON; with `watch` again and again until interrupted. */
export async function status(
  options: SocketOptions & { readonly json?: boolean; readonly watch?: boolean },
  io: Io,
): Promise<void> {
  const client = connectTo(options, io)
  const show = async () => {
    const snapshot = await client.status(io.signal)
    if (options.json) return JSON.stringify(statusJson(snapshot), null, options.watch ? undefined : 2)
    return renderStatus(snapshot, {
      now: Date.now(),
      colour: io.stdout.isTTY === true,
      // 0 where a terminal does not know its size.
      width: io.stdout.columns || 120,
    })
  }
  if (!options.watch) return print(io, await show())
  while (!io.signal.aborted) {
    const text = await show()
    print(io, io.stdout.isTTY && !options.json ? CLEAR + text : text)
    await sleep(PERIOD_MS, undefined, { signal: io.signal }).catch(() => {})
  }
}
