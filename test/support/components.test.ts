import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ComponentName, component, skipReason, variableOf } from './components.ts'

// Each test takes another component, one that no unit test needs: an answer is kept for the life of the process.
describe('a real component', () => {
  test('is the program that its environment variable names', async () => {
    await withEnvironment({ [variableOf('haproxy')]: process.execPath }, async () => {
      assert.equal(await component('haproxy'), process.execPath)
      assert.equal(await skipReason('haproxy'), false)
    })
  })

  test('that is not where the variable says is a reason to skip, naming both', async () => {
    await withEnvironment({ [variableOf('faketime')]: '/nowhere/faketime', CI: undefined }, async () => {
      assert.equal(
        await quietly(() => skipReason('faketime')),
        'component faketime is missing at /nowhere/faketime, where CERTFERRY_TEST_FAKETIME says it is',
      )
    })
  })

  test('that is missing fails the suite where CI is set', async () => {
    const name: ComponentName = 'consul-template'
    await withEnvironment({ [variableOf(name)]: 'none', CI: 'true' }, async () => {
      await assert.rejects(skipReason(name), /component consul-template is missing/)
    })
  })
})

async function withEnvironment(changes: Readonly<Record<string, string | undefined>>, action: () => Promise<void>) {
  const before = Object.keys(changes).map((name) => [name, process.env[name]] as const)
  set(Object.entries(changes))
  try {
    await action()
  } finally {
    set(before)
  }
}

function set(values: readonly (readonly [string, string | undefined])[]) {
  for (const [name, value] of values) {
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
}

/** Without the loud line, which would frighten readers of a run in which nothing is wrong. */
async function quietly<T>(action: () => Promise<T>): Promise<T> {
  const { error } = console
  console.error = () => {}
  try {
    return await action()
  } finally {
    console.error = error
  }
}
