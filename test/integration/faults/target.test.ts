import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { COUNTS_HUPS, runShell } from '../../reloaders/support.ts'
import { skipReason } from '../../support/components.ts'
import { bundleOnce, createRig, isWell, type Rig, type RigOptions, servedBy, survive } from '../../support/fault-rig.ts'
import { startNginx } from '../../support/nginx.ts'
import { createStage, SERVER_NAME, type Stage, type WebOptions } from '../../support/stage.ts'
import { until } from '../../support/until.ts'
import { startVault } from '../../support/vault.ts'
import { readPair } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)
const isRoot = process.getuid?.() === 0
const asRoot = skip || (isRoot ? false : 'takes root to become another user, or to make namespaces')

async function rig(options: Partial<RigOptions> = {}): Promise<Rig> {
  assert.ok(vault)
  return createRig({ vault, program, ...options })
}

/** The proof gives up soon, so that a refusal takes seconds. */
const IMPATIENT: WebOptions = { verify: { deadline: '1s' } }

const scriptOf = ({ folder }: Pick<Stage, 'folder'>) => join(folder, 'reload')
const hangUp = ({ pidFile }: Pick<Stage, 'pidFile'>) => `kill -HUP "$(cat ${pidFile})" 2>/dev/null || :`
function script(stage: Stage, text: string) {
  writeFileSync(`${scriptOf(stage)}.new`, `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  renameSync(`${scriptOf(stage)}.new`, scriptOf(stage))
}

/** Reloads by a program that a test may change at any time; it begins with one that tells nginx. */
const byScript = (options: object = {}): Partial<RigOptions> => ({
  web: (stage) => ({
    ...IMPATIENT,
    more: { reload: [{ kind: 'exec', command: [scriptOf(stage), 'reload'], ...options }] },
  }),
  prepare: async (stage) => script(stage, hangUp(stage)),
})

/** The program fails like this for any but the certificate in service. */
const refusing = (text: string) => async (place: Rig) => {
  const { stage, certferry } = place
  const { serial } = await certferry.certificate('web', 'is told', () => true)
  script(stage, `if [ "$CERTFERRY_SERIAL" = ${serial} ]; then ${hangUp(stage)}; exit 0; fi\n${text}`)
}
const mendScript = ({ stage }: Rig) => script(stage, hangUp(stage))

/** A directive that nginx does not know, at the end of its config. */
const breakConfig = ({ nginx }: Rig) => {
  assert.ok(nginx)
  writeFileSync(nginx.configFile, `${readFileSync(nginx.configFile, 'utf8')}\nbogus_directive on;\n`)
}
const mendConfig = ({ nginx }: Rig) => {
  assert.ok(nginx)
  writeFileSync(nginx.configFile, readFileSync(nginx.configFile, 'utf8').replace(/\nbogus_directive on;\n/g, ''))
}

/** Runs a server again and again: it lives for less than a proof takes, and is gone for longer than a look may miss. */
const CRASHES = 'while :; do timeout -s KILL 0.1 "$@"; sleep 0.3; done'

/** The last error as the status tells it. */
const toldOf = ({ held }: { held: { lastError: { message: string } | null } }) => held.lastError?.message ?? ''

describe('a target that cannot be told', { skip, concurrency: 8 }, () => {
  for (const content of ['', 'nginx', '-1'])
    test(`R2 a pid file that holds ${JSON.stringify(content)} signals nobody, and costs nothing but the reload`, async () => {
      await using place = await rig()
      const { pidFile } = place.stage
      const pid = readFileSync(pidFile, 'utf8')
      await survive(place, {
        reason: 'reload_target_missing',
        inject: () => writeFileSync(pidFile, content),
        meanwhile: {
          files: 'new',
          also: (story) => assert.match(toldOf(story), /which is no process id; nothing was signalled/),
        },
        repair: () => writeFileSync(pidFile, pid),
      })
    })

  test('R3 a pid that now is that of another process is found out by its start, and that process is left alone', async () => {
    await using place = await rig({ web: IMPATIENT })
    const { stage, nginx } = place
    await using bystander = runShell('/bin/sh', COUNTS_HUPS)
    assert.equal(await bystander.next(), 'ready')
    await using stack = new AsyncDisposableStack()
    await survive(place, {
      reason: 'reload_wrong_process',
      inject: async () => {
        const { mtime } = statSync(stage.pidFile)
        await nginx?.stop('SIGKILL')
        writeFileSync(stage.pidFile, `${bystander.pid}\n`)
        // As a reused pid has it: the file is older than the process.
        const before = new Date(mtime.getTime() - 60_000)
        utimesSync(stage.pidFile, before, before)
      },
      meanwhile: {
        files: 'new',
        served: 'down',
        also: (story) => assert.match(toldOf(story), /after the file was written at .*nothing was signalled/),
      },
      repair: async () => {
        stack.use(await stage.nginx())
      },
    })
    await assertUnsignalled(bystander)
  })

  test('R3 a pid that is that of a program of another name is left alone, however old it is', async () => {
    await using bystander = runShell('/bin/sh', COUNTS_HUPS)
    assert.equal(await bystander.next(), 'ready')
    await using place = await rig({ web: { ...IMPATIENT, reload: { process: 'nginx' } } })
    const { pidFile } = place.stage
    const pid = readFileSync(pidFile, 'utf8')
    await survive(place, {
      reason: 'reload_wrong_process',
      inject: () => writeFileSync(pidFile, `${bystander.pid}\n`),
      meanwhile: { files: 'new', also: (story) => assert.match(toldOf(story), /not "nginx"; nothing was signalled/) },
      repair: () => writeFileSync(pidFile, pid),
    })
    await assertUnsignalled(bystander)
  })

  /** nginx alone is the first process there; below a shell it is the second. */
  const NAMESPACE = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
  for (const [pid, before, reload] of [
    ['1', NAMESPACE, {}],
    ['2', [...NAMESPACE, 'sh', '-c', '"$0" "$@" & wait'], { process: 'nginx' }],
  ] as const)
    test(`R4 the pid ${pid} of an nginx in a PID namespace of its own is not taken for one of ours, and the hint says shareProcessNamespace`, {
      skip: asRoot,
    }, async () => {
      await using place = await rig({ web: { ...IMPATIENT, reload }, nginx: { before } })
      const { stage, nginx } = place
      assert.equal(readFileSync(stage.pidFile, 'utf8').trim(), pid)
      await using stack = new AsyncDisposableStack()
      await survive(place, {
        reason: 'reload_wrong_process',
        inject: () => {},
        meanwhile: {
          files: 'new',
          also: (story) => assert.match(toldOf(story), /nothing was signalled; .*shareProcessNamespace/),
        },
        repair: async () => {
          await nginx?.stop('SIGKILL')
          stack.use(await stage.nginx())
        },
      })
    })

  /** The config, and all that is beside it, is handed over first. */
  const AS_4711 =
    'for last; do :; done; chown -R 4711:4711 "${last%/*}"; exec setpriv --reuid=4711 --regid=4711 --clear-groups "$0" "$@"'
  test('R5 an nginx of another user is served on, and told of once it runs as the user of certferry', {
    skip: asRoot,
  }, async () => {
    const user = { uid: 4711, gid: 4711 }
    chmodSync(join(program, '..'), 0o755)
    await using place = await rig({
      certferry: { before: ['/bin/sh', '-c', AS_4711] },
      prepare: async (stage) => give(user, stage.volume, join(stage.volume, 'web')),
      web: IMPATIENT,
    })
    const { stage, nginx } = place
    await using stack = new AsyncDisposableStack()
    await survive(place, {
      reason: 'reload_eperm',
      inject: () => {},
      meanwhile: {
        files: 'new',
        also: (story) => assert.match(toldOf(story), /this user may not signal nginx, pid \d+/),
      },
      repair: async () => {
        await nginx?.stop()
        stack.use(await stage.nginx({ user }))
      },
    })
  })

  test('R6 a reload that hangs, and what it started, is killed whole at its timeout', async () => {
    await using place = await rig(byScript({ timeout: '1s' }))
    const { stage } = place
    const pids = join(stage.folder, 'pids')
    await survive(place, {
      reason: 'reload_timeout',
      // Neither heeds SIGTERM.
      inject: () =>
        script(
          stage,
          `trap "" TERM\nsh -c 'trap "" TERM; echo $$ >> ${pids}; while :; do sleep 1; done' &\necho $$ >> ${pids}\nwait`,
        ),
      meanwhile: {
        files: 'new',
        also: () => {
          for (const pid of readFileSync(pids, 'utf8').trim().split('\n').slice(0, 2))
            assert.ok(hasEnded(pid), `process ${pid} of the first try`)
        },
      },
      repair: mendScript,
    })
  })

  const TOKEN = `hvs.${'A'.repeat(90)}`
  const EXEC: Readonly<
    Record<string, { reason: string; inject: (place: Rig) => unknown; files: 'old' | 'new'; says: RegExp }>
  > = {
    'exits with 3': {
      reason: 'reload_failed',
      inject: refusing('echo no such thing >&2; exit 3'),
      files: 'old',
      says: /exited with code 3; it printed: no such thing$/,
    },
    'is killed by a signal': {
      reason: 'reload_failed',
      inject: refusing('kill -KILL $$'),
      files: 'old',
      says: /was killed by SIGKILL$/,
    },
    'prints 3 MB, with a token among it': {
      reason: 'reload_failed',
      inject: refusing(`yes 0123456789 | head -c 3000000; echo ${TOKEN}; echo the end; exit 1`),
      files: 'old',
      says: /^.{200,5000}the end$/s,
    },
    'is not there any more': {
      reason: 'reload_target_missing',
      inject: ({ stage }) => rmSync(scriptOf(stage)),
      files: 'new',
      says: /could not be started: there is no such program \(ENOENT\)/,
    },
    'may not be executed': {
      reason: 'reload_target_missing',
      inject: ({ stage }) => chmodSync(scriptOf(stage), 0o644),
      files: 'new',
      says: /could not be started: it may not be executed by this user \(EACCES\)/,
    },
  }
  for (const [claim, { reason, inject, files, says }] of Object.entries(EXEC))
    test(`R7 a reload command that ${claim} is told with what it said, and the next try is the same certificate`, async () => {
      await using place = await rig(byScript())
      await survive(place, {
        reason,
        inject: async () => void (await inject(place)),
        meanwhile: { files, also: (story) => assert.match(toldOf(story), says) },
        repair: mendScript,
      })
    })

  test('R21 a rollback that fails too leaves the newest valid set on disk, and is told as such', async () => {
    await using place = await rig(byScript())
    await survive(place, {
      reason: 'rollback_failed',
      inject: ({ stage }) => script(stage, 'exit 1'),
      meanwhile: {
        files: 'new',
        also: (story) => assert.match(toldOf(story), /refused certificate \S+ .*and the previous one/),
      },
      repair: mendScript,
    })
  })
})

/** Gone, or a zombie that nobody has waited for yet. */
function hasEnded(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')
  } catch {
    return true
  }
}

/** Asserts that nobody sent it a SIGHUP so far. */
async function assertUnsignalled(target: { readonly pid: number; next(): Promise<unknown> }) {
  const first = target.next()
  assert.equal(await Promise.race([first, Promise.resolve('nothing')]), 'nothing')
  process.kill(target.pid, 'SIGHUP')
  assert.equal(await first, 'HUP', 'it listens')
}

function give({ uid, gid }: { uid: number; gid: number }, ...folders: readonly string[]) {
  for (const folder of folders) {
    for (const name of readdirSync(folder)) chownSync(join(folder, name), uid, gid)
    chownSync(folder, uid, gid)
  }
}

describe('a target that does not take the new certificate', { skip, concurrency: 8 }, () => {
  test('R8 a configuration test that fails on something else stops the rotation before it begins, and is not blamed on the certificate', async () => {
    const test = (stage: Stage) => join(stage.folder, 'test')
    await using place = await rig({
      web: (stage) => ({ ...IMPATIENT, reload: { test: ['/bin/sh', test(stage)] } }),
      prepare: async (stage) => writeFileSync(test(stage), 'exit 0\n'),
    })
    const { stage, nginx } = place
    assert.ok(nginx)
    writeFileSync(test(stage), `exec ${nginx.command.join(' ')} -t\n`)
    await survive(place, {
      reason: 'target_config_broken',
      inject: breakConfig,
      meanwhile: { also: (story) => assert.match(toldOf(story), /unknown directive "bogus_directive"/) },
      repair: mendConfig,
    })
  })

  const SESSIONS = 'ssl_session_cache shared:s:1m; ssl_session_tickets on; ssl_session_timeout 1h;'
  const SILENT: Readonly<Record<string, string>> = {
    'R9 a reload that nginx takes and does not obey': '',
    'R9, R17 a reload that is not obeyed by an nginx whose clients resume sessions': SESSIONS,
  }
  for (const [name, server] of Object.entries(SILENT))
    test(`${name} is found out by the proof, and the disk goes back to what is served`, async () => {
      await using place = await rig({ web: IMPATIENT, nginx: { server } })
      await survive(place, {
        reason: 'reload_not_effective',
        inject: breakConfig,
        meanwhile: {
          also: async ({ rig: { certferry, nginx } }) => {
            assert.match((await nginx?.errorLog()) ?? '', /\[emerg\].*bogus_directive/)
            assert.ok(((await certferry.metric('certferry_rollback_total{certificate="web"}')) ?? 0) >= 1)
            assert.ok(certferry.log('rotation.rolled-back').length >= 1)
          },
        },
        repair: mendConfig,
      })
    })

  test('R13 a target that a reload kills gets the old certificate back, and the new one once it holds', async () => {
    await using place = await rig(byScript())
    const { stage, nginx } = place
    await using stack = new AsyncDisposableStack()
    await survive(place, {
      reason: ['target_down', 'rollback_failed'],
      inject: () => script(stage, `kill -KILL -"$(cat ${stage.pidFile})"`),
      meanwhile: { files: 'new', served: 'down' },
      repair: async () => {
        mendScript(place)
        await nginx?.stop('SIGKILL')
        stack.use(await stage.nginx())
      },
    })
  })

  test('R13 a target that crashes again and again is told as trouble, nothing is issued for it, and it is proven once it stays', async () => {
    await using place = await rig({ web: IMPATIENT })
    const { stage, nginx } = place
    await using stack = new AsyncDisposableStack()
    const crashing = new AsyncDisposableStack()
    await survive(place, {
      reason: ['target_down', 'reload_target_missing', 'rollback_failed', 'reload_wrong_process'],
      inject: async () => {
        assert.ok(nginx)
        await nginx.stop('SIGKILL')
        // A process of its own: one that this busy one has to kill would live long enough to be proven.
        crashing.use(runShell('/bin/sh', CRASHES, ...nginx.command))
      },
      meanwhile: { files: 'new', served: 'unsteady' },
      repair: async () => {
        await crashing.disposeAsync()
        stack.use(await stage.nginx())
      },
    })
  })

  test('R15 another certificate than ours in service is told as a mismatch; the set on disk stays', async () => {
    await using place = await rig({ web: IMPATIENT })
    const { nginx, stage } = place
    assert.ok(nginx)
    const config = readFileSync(nginx.configFile, 'utf8')
    const other = await otherCertificate(stage)
    await survive(place, {
      reason: 'probe_mismatch',
      inject: () => {
        writeFileSync(nginx.configFile, config.replace(/include .*tls\.conf;/, other))
        nginx.reload()
      },
      // The look between rotations finds it.
      trigger: () => {},
      meanwhile: {
        served: 'new',
        also: (story) => assert.match(toldOf(story), /serves certificate \w+ of "CN=other\.example/),
      },
      repair: () => {
        writeFileSync(nginx.configFile, config)
        nginx.reload()
      },
      afterwards: {
        set: 'old',
        also: async ({ rig: { certferry } }) => assert.equal(certferry.log('rotation.rolled-back').length, 0),
      },
    })
  })
})

/** nginx directives for a certificate of somebody else. */
async function otherCertificate({ folder }: Stage): Promise<string> {
  const { createTestCa } = await import('../../support/ca.ts')
  const { certificatePem, keyPem } = await (await createTestCa()).issue({ commonName: 'other.example' })
  writeFileSync(join(folder, 'other.crt'), certificatePem)
  writeFileSync(join(folder, 'other.key'), keyPem, { mode: 0o600 })
  return `ssl_certificate ${folder}/other.crt; ssl_certificate_key ${folder}/other.key;`
}

describe('a target that takes its time, or has company', { skip, concurrency: 6 }, () => {
  test('R1 a target that does not come within startupGrace is told as trouble; files stay published, and it is proven once it comes', async () => {
    assert.ok(vault)
    await using stage = await createStage({ vault, program })
    await stage.configure(stage.web({ ...IMPATIENT, more: { startupGrace: '1s' } }))
    await using certferry = stage.certferry()
    const pending = await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
    const late = await certferry.certificate('web', 'is DEGRADED', ({ phase }) => phase === 'DEGRADED')
    assert.deepEqual([late.reason, late.serial], ['reload_target_missing', pending.serial])
    assert.equal(readPair(join(stage.volume, 'web'), 'nginx-include'), late.fingerprint)
    assert.equal((await certferry.get('/readyz')).status, 200)
    assert.ok(certferry.log('rotation.failed').every(({ reason }) => reason === 'reload_target_missing'))
    await using _nginx = await stage.nginx()
    const well = await certferry.certificate('web', 'is proven', isWell)
    assert.equal(await servedBy(stage), well.fingerprint)
    assert.equal(await stage.issued(), 1)
  })

  test('R10 no client gets the old certificate any more once a rotation is told as proven', async (t) => {
    await using place = await rig({ nginx: { workers: 2 } })
    const { certferry, stage } = place
    for (let round = 1; round <= 4; round += 1) {
      const old = await certferry.certificate('web', 'is in service', isWell)
      const clients = connectOn(stage, old.fingerprint)
      const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
      assert.ok(results[0]?.ok, results[0]?.error?.message)
      await clients.proven()
      t.diagnostic(`round ${round}: ${JSON.stringify(clients.seen)}`)
      assert.deepEqual([clients.seen.late, clients.seen.failed], [0, 0], 'old certificates after the proof, failures')
    }
    assert.equal(await stage.issued(), 5)
  })

  test('R11 a worker that lingers on an old connection holds neither the proof back nor its client', async () => {
    await using place = await rig()
    const { certferry, stage } = place
    const kept = connect({ host: '127.0.0.1', port: stage.port, servername: SERVER_NAME, rejectUnauthorized: false })
    await once(kept, 'secureConnect')
    kept.write('GET / HTTP/1.1\r\nHost: web\r\n')
    const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
    assert.ok(results[0]?.ok, results[0]?.error?.message)
    const now = await certferry.certificate('web', 'is in service', isWell)
    assert.equal(await servedBy(stage), now.fingerprint, 'new clients get the new one')
    kept.write('\r\n')
    assert.match(String(await once(kept, 'data')), /^HTTP\/1\.1 200 OK/)
    kept.destroy()
    assert.equal(certferry.log('rotation.failed').length, 0)
  })

  test('R12 a key that the user of nginx may not read leaves the old certificate in service; a mode that lets it read heals', {
    skip: asRoot,
  }, async () => {
    const [uid, gid] = [4712, 4712]
    const output = (stage: Stage, mode: string) => ({
      outputs: [
        {
          kind: 'pem',
          directory: join(stage.volume, 'web'),
          layout: 'nginx-include',
          gid,
          mode,
        },
      ],
    })
    await using place = await rig({
      web: (stage) => ({ ...IMPATIENT, more: output(stage, '0640') }),
      prepare: async (stage) => {
        chmodSync(stage.folder, 0o777)
        chmodSync(stage.volume, 0o755)
        chownSync(join(stage.volume, 'web'), 0, gid)
        chmodSync(join(stage.volume, 'web'), 0o750)
      },
      nginx: { user: { uid, gid } },
    })
    const { stage, certferry, nginx } = place
    const old = await certferry.certificate('web', 'is in service', isWell)
    const configure = (mode: string) =>
      stage.configure(
        stage.web({ ...IMPATIENT, ttl: '100s', more: { renew: { before: '10s', jitter: 0 }, ...output(stage, mode) } }),
      )
    await configure('0600')
    await until('the changed config is loaded', () => certferry.log('config.loaded').length > 0)
    await certferry.control.rotate({ certificates: ['web'] })
    const held = await certferry.certificate(
      'web',
      'is refused',
      ({ reason }) => reason === 'reload_not_effective' || reason === 'rollback_failed',
    )
    assert.equal(held.phase, 'DEGRADED')
    assert.equal(await servedBy(stage), old.fingerprint)
    assert.match((await nginx?.errorLog()) ?? '', /\[emerg\].*Permission denied/)
    assert.equal((await certferry.get('/readyz')).status, 200)
    await configure('0640')
    const well = await certferry.certificate(
      'web',
      'recovers by itself',
      (status) => isWell(status) && status.serial !== old.serial,
    )
    assert.equal(await servedBy(stage), well.fingerprint)
  })

  for (const layout of ['nginx-include', 'generation', 'flat'] as const)
    test(`R14 somebody else reloads nginx over and over while certificates are swapped in layout ${layout}: each is proven in the end`, async (t) => {
      await using place = await rig({ web: { layout, verify: { deadline: '5s' } } })
      const { certferry, nginx, stage, directory } = place
      assert.ok(nginx)
      let isOver = false
      const foreign = (async () => {
        for (let count = 0; ; count += 1) {
          if (isOver) return count
          nginx.reload()
          await sleep(30)
        }
      })()
      try {
        for (let round = 0; round < 5; round += 1) {
          const before = await certferry.certificate('web', 'is in service', isWell)
          await certferry.control.rotate({ certificates: ['web'] })
          await certferry.certificate(
            'web',
            'is in service again',
            (status) => isWell(status) && status.serial !== before.serial,
          )
        }
      } finally {
        isOver = true
      }
      const reloads = await foreign
      const mismatches = ((await nginx.errorLog()).match(/key values mismatch/g) ?? []).length
      const failed = certferry.log('rotation.failed').length
      t.diagnostic(
        `${layout}: ${reloads} foreign reloads, ${mismatches} of mixed pairs, ${failed} rotations tried again`,
      )
      if (layout === 'nginx-include') assert.equal(mismatches, 0)
      const well = await certferry.certificate('web', 'is in service', isWell)
      assert.equal(readPair(directory, layout), well.fingerprint)
      assert.equal(await servedBy(stage), well.fingerprint)
      assert.equal(await stage.issued(), 6)
    })

  test('R20 every set has new inodes and the time of its writing, so that no cache keyed by them takes it for an old one', async () => {
    await using place = await rig({ web: { layout: 'flat' } })
    const { certferry, directory } = place
    const seen = new Map<string, string>()
    for (let round = 0; round < 4; round += 1) {
      const before = await certferry.certificate('web', 'is in service', isWell)
      for (const name of ['tls.crt', 'tls.key']) {
        const { ino, mtimeNs } = statSync(join(directory, name), { bigint: true })
        const key = `${name} ${ino} ${mtimeNs}`
        assert.equal(seen.get(key), undefined, `${key} belonged to certificate ${seen.get(key)}`)
        seen.set(key, before.serial ?? '')
      }
      const startedAt = BigInt(Date.now() - 5_000) * 1_000_000n
      const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
      assert.ok(results[0]?.ok, results[0]?.error?.message)
      assert.ok(statSync(join(directory, 'tls.crt'), { bigint: true }).mtimeNs > startedAt, 'the time is not made up')
    }
  })

  test('R22 twenty certificates with one nginx are rotated at the price of a few reloads, and each is proven', async (t) => {
    assert.ok(vault)
    await using stage = await createStage({ vault, program })
    const names = Array.from({ length: 20 }, (_, index) => `web${index}`)
    const certificates = names.map((name) => stage.web({ name, commonName: `${name}.example.com` }))
    await stage.configure(...certificates)
    await using certferry = stage.certferry()
    for (const name of names) await certferry.certificate(name, 'is on disk', ({ serial }) => serial !== null)
    const servers = names.map(
      (name) =>
        `server { listen 127.0.0.1:${stage.port} ssl; server_name ${name}.example.com; include ${stage.volume}/${name}/tls.conf; }`,
    )
    await using nginx = await startNginx({
      port: stage.port,
      pidFile: stage.pidFile,
      server: `include ${stage.volume}/web0/tls.conf;`,
      http: servers.join('\n'),
      workers: 2,
    })
    for (const name of names) await certferry.certificate(name, 'is proven', isWell)
    const reloads = async () => ((await nginx.errorLog()).match(/signal 1 \(SIGHUP\) received/g) ?? []).length
    const before = await reloads()
    const { results } = await certferry.control.rotate({ certificates: 'all', wait: true })
    assert.deepEqual(
      results.filter(({ ok }) => !ok),
      [],
    )
    const spent = (await reloads()) - before
    t.diagnostic(`${spent} reloads for 20 certificates`)
    assert.ok(spent >= 1 && spent <= 5, `${spent} reloads`)
    const told = certferry.log('reload.finished').flatMap(({ certificates }) => certificates)
    for (const name of names) assert.ok(told.includes(name), `${name} was told`)
    assert.equal(await stage.issued(), 40)
  })
})

/** Clients that connect without pause; `seen.late` counts those that began after the proof and got the certificate of before. */
function connectOn(stage: Stage, old: string | null) {
  const seen = { old: 0, late: 0, new: 0, failed: 0 }
  let isOver = false
  let isProven = false
  const client = async () => {
    while (!isOver) {
      const isLate = isProven
      const served = await servedBy(stage)
      if (served === undefined) seen.failed += 1
      else if (served !== old) seen.new += 1
      else if (isLate) seen.late += 1
      else seen.old += 1
    }
  }
  const clients = Promise.all([client(), client(), client()])
  return {
    seen,
    proven: async () => {
      isProven = true
      const { new: before } = seen
      await until('many more have connected', () => seen.new >= before + 40)
      isOver = true
      await clients
    },
  }
}
