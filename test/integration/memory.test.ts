import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { bundleCli } from '../../tools/build.ts'
import type { Certferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { cannotScan, formsOf, scanMemory } from '../support/memory-scan.ts'
import { createStage, type Stage } from '../support/stage.ts'
import { startVault, WEB_ROLE } from '../support/vault.ts'

const lacking = await skipReason('vault')
const unreadable = cannotScan(process.ppid)
if (unreadable) console.error(`SKIPPED: ${unreadable}`)
const skip = lacking || unreadable
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki({
  roles: { ec: { ...WEB_ROLE, key_type: 'ec' }, rsa: { ...WEB_ROLE, key_type: 'rsa', key_bits: 2048 } },
})

const programs = mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => rmSync(programs, { recursive: true, force: true }))
const program = join(programs, 'cli.cjs')
await bundleCli(programs)

const CASES = ['sign-ec', 'sign-rsa', 'issue-ec', 'issue-rsa'] as const
const ALGORITHMS = { ec: 'ecdsa-p256', rsa: 'rsa-2048' } as const

/** A certificate of each kind, in all layouts. */
async function prepare(): Promise<Stage> {
  assert.ok(vault)
  const policy = (mount: string, role: string) =>
    [`sign/${role}`, 'issue/ec', 'issue/rsa']
      .map((path) => `path "${mount}/${path}" { capabilities = ["update"] }`)
      .join('\n')
  const stage = await createStage({ vault, program, policy })
  await stage.configure(
    ...CASES.map((name) => {
      const isSigned = name.startsWith('sign')
      const algorithm = name.endsWith('ec') ? 'ec' : 'rsa'
      const outputs = ['nginx-include', 'flat'].map((layout) => ({
        kind: 'pem',
        directory: join(stage.volume, name, layout),
        layout,
      }))
      outputs.push({ kind: 'combined', directory: join(stage.volume, name, 'one'), layout: 'generation' })
      const key = isSigned ? { key: { algorithm: ALGORITHMS[algorithm] } } : {}
      const source = isSigned ? {} : { method: 'issue', role: algorithm }
      return stage.web({ name, served: false, source, more: { outputs, ...key } })
    }),
  )
  return stage
}

const DIRECTORIES = 3
const keyOf = ({ volume }: Stage, name: string) => readFileSync(join(volume, name, 'flat', 'tls.key'), 'utf8')
/** Nothing of it is under way: until then a rendered key is in a buffer. */
const isDone = (certferry: Certferry, name: string) =>
  certferry.certificate(name, 'is delivered', ({ phase, verified }) => phase === 'ACTIVE' && verified !== 'pending')

async function rotateAll(certferry: Certferry): Promise<void> {
  const before = await certferry.status()
  await certferry.control.rotate({ certificates: [...CASES] })
  for (const { name, serial } of before.certificates)
    await certferry.certificate(name, 'is renewed', (now) => now.serial !== serial && now.verified !== 'pending')
}

test('no copy of a key stays in memory but the one that OpenSSL computes with, after rotations and after a restart', {
  skip,
}, async (t) => {
  await using stage = await prepare()
  const keys = new Map<string, string[]>(CASES.map((name) => [name, []]))
  const remember = () => {
    for (const name of CASES) keys.get(name)?.push(keyOf(stage, name))
  }
  await using first = stage.certferry()
  for (const name of CASES) await isDone(first, name)
  remember()
  for (let round = 0; round < 2; round += 1) {
    await rotateAll(first)
    remember()
  }
  check(first, 'after rotations')
  await first.stop()
  await using second = stage.certferry()
  for (const name of CASES) await isDone(second, name)
  check(second, 'after a restart')

  function check(certferry: Certferry, when: string): void {
    const sought = [...keys].flatMap(([name, pems]) =>
      pems.toReversed().map((pem, age) => ({ name, which: AGES[age] ?? '', forms: formsOf(pem) })),
    )
    const needles = sought.flatMap(({ name, which, forms }) =>
      Object.entries(forms).map(([form, copies]) => [`${name} ${which} ${form}`, copies] as const),
    )
    const { bytes, counts } = scanMemory(certferry.pid, Object.fromEntries(needles))
    t.diagnostic(`${when}: ${Math.round(bytes / 2 ** 20)} MiB, ${sought.length} keys in ${needles.length} forms`)
    for (const { name, which, forms } of sought) {
      const found = Object.keys(forms).map((form) => [form, counts[`${name} ${which} ${form}`] ?? 0] as const)
      t.diagnostic(`${when}, ${name}, ${which}: ${found.map(([form, count]) => `${count} ${form}`).join(', ')}`)
      for (const [form, count] of found) {
        // Once in each directory's bundle at most; what is on disk for going back is in memory as well.
        if (form === 'bytes')
          assert.equal(count, counts[`${name} ${which} freed`], `${when}, ${name}, ${which}: ${form}`)
        // Parsing is OpenSSL's, once for each directory; that it frees this without overwriting it is not ours to change.
        else if (form === 'freed') assert.ok(count <= DIRECTORIES, `${when}, ${name}, ${which}: ${count} freed`)
        else if (form === 'number')
          assert.ok(count <= DIRECTORIES && (count > 0 || which !== 'current'), `${count} numbers`)
        // An answer of Vault that holds a key is text, which Node does not let us overwrite.
        else if (!(form === 'pemOfVault' && name.startsWith('issue') && certferry === first))
          assert.equal(count, 0, `${when}, ${name}, ${which}: ${form}`)
      }
    }
  }
})

const AGES = ['current', 'previous', 'the one before']
