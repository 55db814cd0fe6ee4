import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type AdminDeps, type AdminOptions, openAdmin } from '../../src/observe/admin.ts'
import type { Control } from '../../src/observe/control.ts'
import type { EventMap, EventName } from '../../src/observe/events.ts'
import { active, NOW, sidecar } from './samples.ts'

export type Heard = { [Name in EventName]: { name: Name; event: EventMap[Name] } }[EventName]

/** An admin server in a folder of its own, with a control that tests can change. Closes both when disposed. */
export async function startAdmin(
  options: (folder: string) => AdminOptions,
  { control = {}, ...deps }: Partial<Omit<AdminDeps, 'control'>> & { control?: Partial<Control> } = {},
) {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-admin-'))
  const heard: Pick<Heard, 'name' | 'event'>[] = []
  const chosen = options(folder)
  const admin = await openAdmin(chosen, {
    control: {
      snapshot: () => sidecar([active('web')]),
      stuck: () => undefined,
      unready: () => undefined,
      rotate: async () => ({ results: [] }),
      reloadConfig: async () => ({ added: [], changed: [], removed: [] }),
      ...control,
    },
    metrics: { contentType: 'text/plain; version=0.0.4; charset=utf-8', text: async () => 'up 1\n' },
    emit: (name, event) => void heard.push({ name, event }),
    now: () => NOW,
    ...deps,
  }).catch(async (error: unknown) => {
    await rm(folder, { recursive: true })
    throw error
  })
  return {
    admin,
    folder,
    heard,
    url: admin.url ?? '',
    port: Number(new URL(admin.url ?? 'http://none:1').port),
    socket: chosen.socket ?? '',
    async [Symbol.asyncDispose]() {
      await admin[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

export const onPort = (): AdminOptions => ({ listen: '127.0.0.1:0' })
export const onSocket = (folder: string): AdminOptions => ({ socket: join(folder, 'control.sock') })

/** Sends bytes as they are; resolves with all that comes back until the server closes. */
export async function exchange(to: number | string, bytes: string): Promise<string> {
  const socket = dial(to)
  let reply = ''
  socket.setEncoding('utf8')
  socket.on('data', (chunk) => {
    reply += chunk
  })
  socket.write(bytes)
  await closed(socket)
  return reply
}

/** Sends one byte every few ms; resolves like `exchange`. */
export async function drip(to: number | string, bytes: string): Promise<string> {
  const socket = dial(to)
  let reply = ''
  let sent = 0
  socket.setEncoding('utf8')
  socket.on('data', (chunk) => {
    reply += chunk
  })
  const timer = setInterval(() => socket.write(bytes[sent++] ?? 'x'), 5)
  await closed(socket)
  clearInterval(timer)
  return reply
}

/** Resolves when the connection is gone, however. */
export const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.on('error', () => {})
    socket.once('close', () => resolve())
  })

export const dial = (to: number | string): Socket => (typeof to === 'number' ? connect(to, '127.0.0.1') : connect(to))

/** `200`, `431`, …, of a raw reply. */
export const statusOf = (reply: string): string => /^HTTP\/1\.1 (\d{3}) /.exec(reply)?.[1] ?? `no status in: ${reply}`
