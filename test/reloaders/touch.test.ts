import assert from 'node:assert/strict'
import { watch } from 'node:fs'
import { readFile, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { context, failure, make, never, temporaryFolder } from './support.ts'

test('sets the time of the file, which wakes who watches it, and changes nothing else', async () => {
  await using folder = await temporaryFolder()
  const file = join(folder.path, 'dynamic.yaml')
  await writeFile(file, 'http: {}\n')
  await utimes(file, 1, 1)
  const { ino } = await stat(file)
  const woken = Promise.withResolvers<string | null>()
  const watcher = watch(folder.path, (_event, name) => woken.resolve(name))
  const reloader = make({ kind: 'touch', file })
  assert.equal(await reloader.inspect(), `set the time of ${file}`)
  assert.equal((await stat(file)).mtimeMs, 1000, 'a look changes nothing')
  const before = Date.now()
  await reloader.reload(context, never)
  assert.equal(await woken.promise, 'dynamic.yaml')
  watcher.close()
  const found = await stat(file)
  assert.ok(found.mtimeMs >= before - 1 && found.ino === ino)
  assert.equal(await readFile(file, 'utf8'), 'http: {}\n')
})

test('a file that is not there is a target that is not there', async () => {
  const reloader = make({ kind: 'touch', file: '/nowhere/dynamic.yaml' })
  const missing = failure(
    'RELOAD_TARGET_MISSING',
    /^\/nowhere\/dynamic\.yaml, which the target watches, cannot be touched: ENOENT/,
  )
  await assert.rejects(reloader.reload(context, never), missing)
  await assert.rejects(reloader.inspect(), missing)
})

test('a file of somebody else is told as such', async () => {
  const isRoot = process.geteuid?.() === 0
  if (isRoot) process.seteuid?.(65_534)
  try {
    const refused = failure(
      'RELOAD_EPERM',
      /^the time of \/etc\/passwd may not be set by this user: (?:EPERM|EACCES|it belongs to uid 0)$/,
    )
    const reloader = make({ kind: 'touch', file: '/etc/passwd' })
    await assert.rejects(reloader.reload(context, never), refused)
    await assert.rejects(reloader.inspect(), refused)
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
})
