import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { writeNew } from '../../src/outputs/atomic-file.ts'
import { differenceOf } from '../../src/outputs/check.ts'
import { sha256 } from '../../src/outputs/manifest.ts'
import { type PinnedDir, pinDirectory } from '../../src/outputs/pinned-dir.ts'
import { makeVolume } from '../support/volume.ts'

test('a file is read again only when it changed since it was found right, or too lately to be sure', async (t) => {
  const directory = makeVolume(t)
  await using pinned = await pinDirectory(directory)
  const reads: string[] = []
  const counted: PinnedDir = {
    ...pinned,
    readFile: (name) => {
      reads.push(name)
      return pinned.readFile(name)
    },
  }
  const content = Buffer.from('content')
  const owner = await writeNew(pinned, 'file', { content, mode: 0o600 })
  const file = { name: 'file', size: content.length, sha256: sha256(content), ...owner }
  const clock = { now: Date.now() }
  const seen = { signatures: new Map<string, string>(), now: () => clock.now }
  const look = async () => {
    reads.length = 0
    return { what: await differenceOf(counted, file, seen), reads: reads.length }
  }

  const path = join(directory, 'file')
  const { ctimeMs } = fs.statSync(path)
  clock.now = ctimeMs + 500
  assert.deepEqual(await look(), { what: undefined, reads: 1 })
  assert.deepEqual(await look(), { what: undefined, reads: 1 }, 'half a second old: not trusted yet')
  clock.now = ctimeMs + 60_000
  assert.deepEqual(await look(), { what: undefined, reads: 1 })
  assert.deepEqual(await look(), { what: undefined, reads: 0 })
  const times = fs.statSync(path)
  fs.writeFileSync(path, 'CONTENT')
  fs.utimesSync(path, times.atime, times.mtime)
  assert.deepEqual(await look(), { what: 'content', reads: 1 }, 'size and mtime are the same, the content is not')
  fs.writeFileSync(path, 'content')
  assert.deepEqual(await look(), { what: undefined, reads: 1 })
  fs.chmodSync(path, 0o640)
  assert.deepEqual(await look(), { what: 'mode', reads: 0 })
})
