import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { test } from 'node:test'
import { getSystemErrorName } from 'node:util'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { diskError } from '../../src/outputs/disk-error.ts'

const rows: [errno: keyof typeof constants.errno, code: ErrorCode, says: RegExp][] = [
  ['ENOSPC', 'DISK_FULL', /no space left/],
  ['EDQUOT', 'DISK_FULL', /quota/],
  ['EROFS', 'VOLUME_UNAVAILABLE', /read-only/],
  ['EACCES', 'VOLUME_UNAVAILABLE', /permission denied/],
  ['EPERM', 'VOLUME_UNAVAILABLE', /not permitted/],
  ['ENOENT', 'VOLUME_UNAVAILABLE', /no such file/],
  ['ESTALE', 'VOLUME_UNAVAILABLE', /stale/],
  ['EIO', 'WRITE_FAILED', /i\/o error/],
  ['EMFILE', 'WRITE_FAILED', /too many open files/],
  ['EBUSY', 'VOLUME_UNSAFE', /mount the directory instead/],
  ['EXDEV', 'VOLUME_UNSAFE', /mount the directory instead/],
  ['EISDIR', 'FOREIGN_OBJECT', /directory/],
]
for (const [errno, code, says] of rows) {
  test(`${errno} becomes ${code}, naming what was done to which path`, () => {
    const number = -constants.errno[errno]
    const cause = Object.assign(new Error(), { code: getSystemErrorName(number), errno: number })
    const error = diskError('write', '/tls/tls.key', cause)
    assert.ok(error instanceof SidecarError)
    assert.equal(error.code, code)
    assert.match(error.message, /^cannot write \/tls\/tls\.key: /)
    assert.match(error.message, says)
    assert.ok(error.message.endsWith(`(${errno})`), error.message)
    assert.equal(error.cause, cause)
  })
}

test('what is no system error passes as it is', () => {
  for (const error of [new SidecarError('DISK_FULL', 'full'), new TypeError('bug')])
    assert.equal(diskError('write', '/tls', error), error)
})
