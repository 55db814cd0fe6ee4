import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../fixtures/dev-ca-root.ts', import.meta.url))

test('three processes that start at once in one directory have one development CA', async () => {
  const base = await mkdtemp(join(tmpdir(), 'certferry-dev-ca-'))
  try {
    for (let round = 0; round < 5; round += 1) {
      const directory = join(base, `round-${round}`)
      const start = () => spawn(process.execPath, [program, directory], { stdio: ['ignore', 'pipe', 'inherit'] })
      const roots = await Promise.all([start(), start(), start()].map(({ stdout }) => text(stdout)))
      assert.match(roots[0] ?? '', /^[0-9A-F:]{95}$/)
      assert.equal(new Set(roots).size, 1, roots.join('\n'))
      assert.deepEqual((await readdir(directory)).sort(), ['ca.crt', 'dev-ca.pem'])
    }
  } finally {
    await rm(base, { recursive: true })
  }
})
