import { writeFileSync } from 'node:fs'
import { Worker, workerData } from 'node:worker_threads'

/** How long one input may take. Generous: the machine may be busy, and a real hang takes for ever. */
const HANG_MS = 20_000

/** Watches over the main thread, which cannot notice itself that an input keeps it busy for ever. */
export interface Watchdog extends AsyncDisposable {
  /** The input that begins now. It is in the file until the next one, so that not even a crash of Node itself loses it. */
  watch(input: Buffer): void
}

interface Shared {
  /** How many inputs there were. */
  readonly count: Int32Array
  readonly file: string
}

/** Ends the process when an input takes too long. */
export function startWatchdog(file: string): Watchdog {
  const shared: Shared = { count: new Int32Array(new SharedArrayBuffer(4)), file }
  const worker = new Worker(new URL(import.meta.url), { workerData: shared })
  worker.unref()
  return {
    watch: (input) => {
      writeFileSync(file, input)
      Atomics.add(shared.count, 0, 1)
    },
    [Symbol.asyncDispose]: async () => void (await worker.terminate()),
  }
}

function guard({ count, file }: Shared): void {
  let last = 0
  setInterval(() => {
    const now = Atomics.load(count, 0)
    if (now === last && now > 0) {
      process.stderr.write(`an input did not end within ${HANG_MS / 1000} s; it is in ${file}\n`)
      process.kill(process.pid, 'SIGKILL')
    }
    last = now
  }, HANG_MS)
}

if (isShared(workerData)) guard(workerData)

function isShared(data: unknown): data is Shared {
  return typeof data === 'object' && data !== null && 'count' in data && 'file' in data
}
