import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { watchFiles } from '../src/watching.ts'
import { mountedSecret } from './support/mounted.ts'
import { until } from './support/until.ts'

const root = mkdtempSync(join(tmpdir(), 'certferry-watching-'))
after(() => rmSync(root, { recursive: true, force: true }))
const folder = () => mkdtempSync(join(root, 'w-'))

/** Files to watch, and what somebody does to them, one after the other. */
const ways: Record<string, () => { file: string; acts: (() => void)[] }> = {
  'a Secret mounted by the kubelet': () => {
    const volume = mountedSecret(folder())
    const write = (content: string) => volume.write({ 'tls.crt': content })
    write('0')
    const burst = () => {
      for (let count = 0; count < 20; count++) write(`b${count}`)
    }
    return { file: volume.path('tls.crt'), acts: [() => write('1'), () => write('2'), burst, () => write('3')] }
  },
  'the live/ of certbot': () => {
    const place = folder()
    const renew = (number: number) => {
      writeFileSync(join(place, `archive/web/cert${number}.pem`), String(number))
      rmSync(join(place, 'live/web/cert.pem'), { force: true })
      symlinkSync(`../../archive/web/cert${number}.pem`, join(place, 'live/web/cert.pem'))
    }
    for (const name of ['archive', 'live']) mkdirSync(join(place, name, 'web'), { recursive: true })
    renew(1)
    return { file: join(place, 'live/web/cert.pem'), acts: [() => renew(2), () => renew(3)] }
  },
  'a plain file': () => {
    const file = join(folder(), 'tls.crt')
    const replace = () => {
      writeFileSync(`${file}.new`, 'other')
      renameSync(`${file}.new`, file)
    }
    writeFileSync(file, 'first')
    const inPlace = (content: string) => () => writeFileSync(file, content)
    return { file, acts: [inPlace('longer than the first'), replace, () => rmSync(file), inPlace('back'), inPlace('')] }
  },
  'a file whose folders are still to be made': () => {
    const place = folder()
    const file = join(place, 'not/yet/tls.crt')
    const make = () => {
      mkdirSync(join(place, 'not/yet'), { recursive: true })
      writeFileSync(file, '1')
    }
    return { file, acts: [make, () => writeFileSync(file, 'two')] }
  },
}

/** Longer than it takes to notice a change and to tell of it. */
const PAUSE_MS = 700
const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
const failed = (error: unknown) => assert.fail(String(error))

describe('watching files', { concurrency: true }, () => {
  for (const polling of [false, true])
    for (const [what, begin] of Object.entries(ways))
      it(`notices each change of ${what} ${polling ? 'by polling' : 'by inotify'}`, async () => {
        const { file, acts } = begin()
        let told = 0
        await using _watching = watchFiles([file], () => void told++, { polling, pollingMs: 100, failed })
        await until('it is set up', () => told > 0)
        for (const [index, act] of acts.entries()) {
          // A change that is told twice must not be taken for the next one.
          for (let before = -1; before !== told; await pause()) before = told
          const before = told
          act()
          await until(`change ${index + 1} is told`, () => told > before)
        }
      })
})

it('tells nothing of other files beside it, and nothing after its end', async () => {
  const place = folder()
  const file = join(place, 'tls.crt')
  writeFileSync(file, '1')
  let told = 0
  const watching = watchFiles([file], () => void told++)
  await until('it is set up', () => told > 0)
  writeFileSync(join(place, 'other'), '1')
  await pause()
  assert.equal(told, 1)
  await watching[Symbol.asyncDispose]()
  writeFileSync(file, '2')
  await pause()
  assert.equal(told, 1)
})
