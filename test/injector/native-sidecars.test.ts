import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { SidecarError } from '../../src/errors.ts'
import { watchNativeSidecars } from '../../src/injector/native-sidecars.ts'
import type { Kubernetes } from '../../src/kubernetes/client.ts'
import type { Heard } from '../observe/admin-kit.ts'
import { until } from '../support/until.ts'

function watch(version: () => object) {
  const heard: Pick<Heard, 'name' | 'event'>[] = []
  const ask: Kubernetes['ask'] = async ({ path }, schema) => {
    assert.deepEqual(path, ['version'])
    return schema.parse(version())
  }
  const clock = { ...systemClock, random: () => 0 }
  const watcher = watchNativeSidecars({ ask }, { clock, emit: (name, event) => void heard.push({ name, event }) })
  return { watcher, heard, [Symbol.asyncDispose]: () => watcher[Symbol.asyncDispose]() }
}

const versions: Readonly<Record<string, boolean>> = {
  '1.28': false,
  '1.28+': false,
  '1.29': true,
  '1.29+': true,
  '1.36': true,
  '2.0': true,
}
for (const [version, areKnown] of Object.entries(versions))
  test(`Kubernetes ${version} ${areKnown ? 'knows' : 'does not know'} native sidecars`, async () => {
    const [major = '', minor = ''] = version.split('.')
    await using watched = watch(() => ({ major, minor }))
    await until('it is told', () => watched.heard.length === 1)
    assert.equal(watched.watcher.areKnown, areKnown)
    assert.deepEqual(watched.heard[0], { name: 'injector.cluster', event: { version, nativeSidecars: areKnown } })
  })

test('while the API server cannot be asked they are assumed, which is told once; then it is asked again', async () => {
  let tries = 0
  await using watched = watch(() => {
    tries += 1
    if (tries <= 2) throw new SidecarError('KUBERNETES_UNREACHABLE', 'away')
    return { major: '1', minor: '27' }
  })
  assert.equal(watched.watcher.areKnown, true)
  await until('the version is known', () => !watched.watcher.areKnown)
  assert.deepEqual(
    watched.heard.map(({ name }) => name),
    ['injector.cluster-unknown', 'injector.cluster'],
  )
})
