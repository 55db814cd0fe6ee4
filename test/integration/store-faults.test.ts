import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { ErrorCode } from '../../src/errors.ts'
import { LAYOUTS, type Layout } from '../../src/outputs/output.ts'
import type { StepResult, StorePlan } from '../fixtures/store-driver.ts'
import { bundled, nodeIn } from '../support/bundled.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { nameOf, traceNode } from '../support/strace.ts'
import { mountsReason } from '../support/tmpfs.ts'
import { assertTidy, makeVolume, readPair } from '../support/volume.ts'

const skip = await skipReason('strace')
const programs = fs.mkdtempSync(join(tmpdir(), 'certferry-test-'))
fs.chmodSync(programs, 0o755)
after(() => fs.rmSync(programs, { recursive: true, force: true }))
const driver = await bundled(new URL('../fixtures/store-driver.ts', import.meta.url), join(programs, 'driver.mjs'))
const node = await nodeIn(programs)

const ca = await createTestCa()
const [a, b] = [await ca.issue(), await ca.issue()]

/** A run of the driver in a fresh directory, with a failing system call or without. */
function arrange(t: TestContext, layout: Layout, steps: StorePlan['steps'], output: Record<string, unknown> = {}) {
  const volume = makeVolume(t)
  const directory = join(volume, 'tls')
  const planFile = join(volume, 'plan.json')
  const plan: StorePlan = {
    output: { kind: 'pem', directory, layout, ...output },
    bundles: [a, b].map(({ certificatePem, chainPems, keyPem, bundle }) => ({
      certificate: [certificatePem, ...chainPems].join(''),
      key: keyPem,
      receivedAt: bundle.receivedAt,
    })),
    steps,
  }
  fs.writeFileSync(planFile, JSON.stringify(plan))
  const run = async (inject?: string) => {
    fs.rmSync(directory, { recursive: true, force: true })
    const { stdout, stderr, calls } = await traceNode([driver, planFile], join(volume, 'log'), inject)
    return { calls, stderr, results: parseResults(stdout) }
  }
  return { volume, directory, planFile, run }
}

const parseResults = (stdout: string): StepResult[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('F1, F2, F4 and F7 a failing system call', () => {
  const STEPS: StorePlan['steps'] = ['open', 'apply 0', 'settle', 'apply 1', 'apply 1', 'settle']
  const FAULTS: [call: string, fault: string, code: ErrorCode][] = [
    ['fsync', 'error=EIO', 'WRITE_FAILED'],
    ['fsync', 'error=EDQUOT', 'DISK_FULL'],
    ['pwrite64', 'error=ENOSPC', 'DISK_FULL'],
    ['pwrite64', 'retval=10', 'WRITE_FAILED'],
    ['mkdir', 'error=ENOSPC', 'DISK_FULL'],
    ['symlink', 'error=ENOSPC', 'DISK_FULL'],
    ['rename', 'error=ENOSPC', 'DISK_FULL'],
    ['rename', 'error=EBUSY', 'VOLUME_UNSAFE'],
    ['fchmod', 'error=EROFS', 'VOLUME_UNAVAILABLE'],
    ['fchmod', 'error=ESTALE', 'VOLUME_UNAVAILABLE'],
  ]
  for (const layout of LAYOUTS) {
    test(`is named, leaves a whole set in place, and does not outlive its cause (${layout})`, { skip }, async (t) => {
      const { directory, run } = arrange(t, layout, STEPS)
      const { calls, results } = await run()
      assert.deepEqual(
        results.map(({ code, changed }) => code ?? changed ?? 'ok'),
        ['ok', true, 'ok', true, false, 'ok'],
      )
      for (const [call, fault, code] of FAULTS) {
        for (const when of occurrencesInSwap(calls, call)) {
          const where = `${call} ${when}: ${fault}`
          const { results, stderr } = await run(`${call}:${fault}:when=${when}`)
          const [, , , failed, retried, settled] = results
          assert.equal(failed?.code, code, `${where}: ${failed?.message} ${stderr}`)
          assert.ok(failed.message?.includes(directory), `${where}: ${failed.message}`)
          assert.equal(retried?.changed, true, `${where}: ${retried?.message}`)
          assert.equal(settled?.code, undefined, where)
          if (call === 'fsync' && failed.generation !== results[2]?.generation)
            assert.notEqual(
              retried.generation,
              failed.generation,
              `${where}: what may not be on the disk is not trusted`,
            )
          assert.equal(readPair(directory, layout), b.bundle.fingerprint, where)
          assertTidy(directory)
        }
      }
    })
  }

  /** The first, one in the middle and the last time that the second `apply` makes this call. */
  function occurrencesInSwap(calls: readonly string[], name: string): number[] {
    const generations = calls.flatMap((call, index) => (/^mkdir\(.*\.\.gen-/.test(call) ? [index] : []))
    const states = calls.flatMap((call, index) => (/^rename\(.*\.\.state\.json/.test(call) ? [index] : []))
    const [start = 0, lastState = calls.length] = [generations[1], states[1]]
    // The state is written by five calls, of which the rename is the fourth.
    const numbers = calls.flatMap((call, index) =>
      nameOf(call) === name && index >= start && index < lastState - 3
        ? [calls.slice(0, index + 1).filter((one) => nameOf(one) === name).length]
        : [],
    )
    assert.ok(numbers.length > 0, `no ${name} in a swap`)
    return [...new Set([numbers[0], numbers[Math.floor(numbers.length / 2)], numbers.at(-1)])].filter(
      (one) => one !== undefined,
    )
  }
})

for (const layout of LAYOUTS) {
  test(`F9 a power loss finds whole sets only: data before names, names before the commit, the commit before what follows (${layout})`, {
    skip,
  }, async (t) => {
    assertDurableOrder((await arrange(t, layout, ['open', 'apply 0']).run()).calls)
    const { calls } = await arrange(t, layout, ['open', 'apply 0', 'settle', 'apply 1', 'settle']).run()
    const renames = assertDurableOrder(calls)
    assert.ok(renames.filter((name) => name === '..data').length === 2)
    assert.ok(renames.includes('..prev') && renames.includes('..state.json'))
    if (layout === 'flat')
      assert.deepEqual(renames.filter((name) => !name.startsWith('..')).slice(0, 3), ['ca.crt', 'tls.key', 'tls.crt'])
  })
}

/**
 * Walks through the log of a run as a disk that loses, with the power, all that was not synced. Throws where a name could appear there
 * before what it stands for. Resolves with the names in the order they were renamed to.
 */
function assertDurableOrder(calls: readonly string[]): string[] {
  const renames: string[] = []
  /** Files whose content, and directories whose names, are not on the disk yet. */
  const contents = new Set<string>()
  const names = new Set<string>()
  let isCommitting = false
  for (const [index, call] of calls.entries()) {
    const where = `\n${calls.slice(Math.max(0, index - 12), index + 1).join('\n')}`
    const path = /<([^>]+)>/.exec(call)?.[1] ?? ''
    const [from = '', to = ''] = [...call.matchAll(/"([^"]*)"/g)].map(([, text = '']) => text.replace(/^.*\//, ''))
    const kind = nameOf(call)
    if (kind === 'pwrite64') {
      contents.add(path)
      names.add(basename(dirname(path)))
    } else if (kind === 'mkdir' && from.startsWith('..gen-')) {
      names.add(from).add('the name of the generation')
    } else if (kind === 'fsync') {
      contents.delete(path)
      names.delete(basename(path))
      if (basename(path) === 'tls') names.delete('the name of the generation')
      if (basename(path) === 'tls') isCommitting = false
    } else if (kind === 'symlink') {
      names.add('tls')
    } else if (kind === 'rename') {
      renames.push(to)
      assert.deepEqual([...contents], [], `content that is not on the disk yet when ${to} appears:${where}`)
      if (to === '..data')
        assert.deepEqual(
          [...names].filter((name) => name !== 'tls'),
          [],
          `not on the disk yet at the commit:${where}`,
        )
      if (!to.startsWith('..')) assert.ok(!isCommitting, `${to} appears before the commit is on the disk:${where}`)
      if (to === '..data') isCommitting = true
      names.add('tls')
    }
  }
  assert.deepEqual([...names], [], 'names that are not on the disk at the end')
  return renames
}

const namespaces = mountsReason()

describe('F1, F2, F3, F4 and F6 a volume', { skip: namespaces, concurrency: 2 }, () => {
  const claims: Readonly<Record<string, string>> = {
    'full-generation': 'that is full keeps its set, and can go back to the proven one',
    'full-nginx-include': 'that is full keeps its set, and can go back to the proven one (nginx-include)',
    'full-flat': 'that is full keeps its set, and goes back to the proven one once there is room (flat)',
    inodes: 'without inodes keeps its set, and can go back to the proven one',
    'nearly-full': 'with room for a part of a set only never gets that part',
    'read-only': 'that is read-only still tells what it holds',
    'single-file': 'with a single file mounted into it is refused before anything is written',
  }
  for (const [scenario, claim] of Object.entries(claims)) {
    test(claim, async (t) => {
      const volume = makeVolume(t)
      const program = fileURLToPath(new URL('../fixtures/small-volume.ts', import.meta.url))
      const script = 'mount -t tmpfs -o size=256k,nr_inodes=64,mode=0755 tmpfs "$1" && exec "$0" "$2" "$1" "$3"'
      const args = ['-Urm', 'sh', '-c', script, process.execPath, volume, program, scenario]
      const { stdout } = await promisify(execFile)('unshare', args, {
        env: { ...process.env, NODE_TEST_CONTEXT: undefined },
      })
      assert.equal(stdout, `${scenario}: as claimed\n`)
    })
  }
})

describe('without root', { skip: process.geteuid?.() === 0 ? false : 'needs root to become somebody else' }, () => {
  const NOBODY = 65534
  const runAsNobody = (planFile: string) =>
    parseResults(execFileSync(node, [driver, planFile], { uid: NOBODY, gid: NOBODY, encoding: 'utf8' }))
  const give = (...paths: readonly string[]) => {
    for (const path of paths) fs.chownSync(path, NOBODY, NOBODY)
  }

  test('X3 all works the same', async (t) => {
    const { volume, directory, planFile } = arrange(t, 'flat', [
      'open',
      'preflight',
      'apply 0',
      'settle',
      'apply 1',
      'undo',
      'repair',
      'open',
    ])
    give(volume, planFile)
    const results = runAsNobody(planFile)
    assert.deepEqual(
      results.filter(({ code }) => code),
      [],
    )
    assert.equal(readPair(directory, 'flat'), a.bundle.fingerprint)
    assert.equal(fs.statSync(join(directory, 'tls.key')).uid, NOBODY)
    assertTidy(directory)
  })

  test('files are not given away, and the error says what to do', async (t) => {
    const { volume, directory, planFile } = arrange(t, 'generation', ['open', 'apply 0'], { uid: 12 })
    give(volume, planFile)
    const [, applied] = runAsNobody(planFile)
    assert.equal(applied?.code, 'OWNER_DENIED')
    assert.match(applied.message ?? '', /12:65534/)
    assert.deepEqual(fs.readdirSync(directory), [])
  })

  test('F4 a directory of root is refused by name', async (t) => {
    const { volume, directory, planFile } = arrange(t, 'generation', ['open', 'preflight'])
    give(volume, planFile)
    fs.mkdirSync(directory, { mode: 0o755 })
    const [, preflight] = runAsNobody(planFile)
    assert.equal(preflight?.code, 'VOLUME_UNAVAILABLE')
    assert.match(preflight.message ?? '', new RegExp(`${directory}.*EACCES`))
  })
})
