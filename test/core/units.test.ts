import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { quote, redact, Secret } from '../../src/core/secret.ts'
import {
  Duration,
  formatDuration,
  formatMode,
  Mode,
  parseDuration,
  parseFraction,
  parseMode,
} from '../../src/core/units.ts'

describe('durations', () => {
  it('are read with their units', () => {
    assert.deepEqual(
      ['500ms', '90s', '15m', '1h30m', '30d', '1.5h'].map(parseDuration),
      [500, 90_000, 900_000, 5_400_000, 2_592_000_000, 5_400_000],
    )
  })
  for (const text of ['', '5', 'h', '-5m', '5 m', '1e3s', '0s', '40000d', 'P1D'])
    it(`are refused when written "${text}"`, () => assert.throws(() => parseDuration(text), RangeError))
  it('are printed with their two largest units', () => {
    assert.deepEqual([0, 850, 59_999, 90_000, 3_661_000, 187_200_000, -90_000].map(formatDuration), [
      '0ms',
      '850ms',
      '1m',
      '1m 30s',
      '1h 1m',
      '2d 4h',
      '-1m 30s',
    ])
  })
  it('explain themselves in the config', () => {
    const result = Duration.safeParse('soon')
    assert.match(result.error?.issues[0]?.message ?? '', /"soon" is not a duration; write for example 90s/)
  })
})

describe('fractions', () => {
  it('are read as ratio, percentage or number', () =>
    assert.deepEqual(['2/3', '66%', '0.5', 0.25].map(parseFraction), [2 / 3, 0.66, 0.5, 0.25]))
  for (const text of ['3/2', '0', '1', '100%', '1/0', 'half', ''])
    it(`are refused when written "${text}"`, () => assert.throws(() => parseFraction(text), RangeError))
})

describe('modes', () => {
  it('are quoted octal', () => assert.deepEqual(['0600', '640'].map(parseMode), [0o600, 0o640]))
  for (const text of ['600 ', '0800', '4755', 'rw'])
    it(`are refused when written "${text}"`, () => assert.throws(() => parseMode(text), RangeError))
  it('tell a person who forgot the quotes what YAML made of it', () => {
    assert.match(
      Mode.safeParse(600).error?.issues[0]?.message ?? '',
      /quoted octal string such as '0600', not the number 600/,
    )
  })
  it('survive the round trip', () =>
    fc.assert(fc.property(fc.integer({ min: 0, max: 0o777 }), (mode) => parseMode(formatMode(mode)) === mode)))
})

describe('a secret', () => {
  const secret = new Secret('hvs.CAESIJkanary')
  it('prints as [secret] wherever it is put', () => {
    const printed = [
      `${secret}`,
      String(secret),
      JSON.stringify({ secret }),
      inspect({ deep: { secret } }),
      inspect(secret, { showHidden: true, depth: 9 }),
    ]
    for (const text of printed) assert.ok(text.includes('[secret]') && !text.includes('kanary'), text)
  })
  it('is there when asked for', () => assert.equal(secret.reveal(), 'hvs.CAESIJkanary'))
})

describe('foreign text', () => {
  it('loses tokens and private keys', () => {
    const text = 'token hvs.CAESIJabcdefgh and -----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY----- end'
    assert.equal(redact(text), 'token [secret] and [secret] end')
    assert.equal(redact('cut short: -----BEGIN PRIVATE KEY-----\nabc'), 'cut short: [secret]')
  })
  it('is made safe for one line', () => {
    assert.equal(quote('a\nb\u001b[31mc'), 'a b\\x1b[31mc')
    assert.equal(quote('x'.repeat(400)).length, 301)
  })
})
