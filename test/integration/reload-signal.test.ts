import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { COUNTS_HUPS, context, failure, make, never, runShell, temporaryFolder } from '../reloaders/support.ts'

const skip = process.getuid?.() === 0 ? false : 'takes root to become another user'

test('R5 says when this user may neither signal the target nor read its pid file', { skip }, async () => {
  await using folder = await temporaryFolder()
  await chmod(folder.path, 0o755)
  await using target = runShell(
    '/bin/sh',
    'exec setpriv --reuid=1 --regid=1 --clear-groups /bin/sh -c "$1"',
    COUNTS_HUPS,
  )
  assert.equal(await target.next(), 'ready')
  const pidFile = join(folder.path, 'a.pid')
  await writeFile(pidFile, `${target.pid}`, { mode: 0o644 })
  const reloader = make({ kind: 'signal', pidFile })
  await asNobody(async () => {
    const refusal = failure('RELOAD_EPERM', new RegExp(`^this user may not signal .*, pid ${target.pid}$`))
    await assert.rejects(reloader.inspect(), refusal)
    await assert.rejects(reloader.reload(context, never), refusal)
  })
  await chmod(pidFile, 0o600)
  await asNobody(() =>
    assert.rejects(reloader.reload(context, never), failure('RELOAD_EPERM', /a\.pid may not be read by this user$/)),
  )
  await reloader.reload(context, never)
  assert.equal(await target.next(), 'HUP', 'the only signal it got')
})

/** Without the rights of root; the real user id stays, so the target must run as somebody else. */
async function asNobody(action: () => Promise<void>) {
  process.seteuid?.(65_534)
  try {
    await action()
  } finally {
    process.seteuid?.(0)
  }
}
