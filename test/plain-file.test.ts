import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { readPlainFile } from '../src/plain-file.ts'

const directory = mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => rmSync(directory, { recursive: true }))

describe('a file that a config names', () => {
  it('is read whole', () => {
    const file = join(directory, 'plain')
    writeFileSync(file, 'x'.repeat(100_000))
    assert.equal(readPlainFile(file).length, 100_000)
  })
  it('is refused beyond the limit', () => {
    const file = join(directory, 'large')
    writeFileSync(file, 'x'.repeat(11))
    assert.equal(readPlainFile(file, 11).length, 11)
    assert.throws(() => readPlainFile(file, 10), { code: 'larger than 10 bytes' })
  })
  it('does not hold the process up when it is a FIFO that nobody writes to', () => {
    const fifo = join(directory, 'fifo')
    execFileSync('mkfifo', [fifo])
    assert.throws(() => readPlainFile(fifo), { code: 'not a regular file' })
  })
  it('is refused when it is a device, a directory or missing', () => {
    assert.throws(() => readPlainFile('/dev/zero'), { code: 'not a regular file' })
    assert.throws(() => readPlainFile(directory), { code: 'EISDIR' })
    assert.throws(() => readPlainFile(join(directory, 'none')), { code: 'ENOENT' })
  })
})
