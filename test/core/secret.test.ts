import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { mask, Secret } from '../../src/core/secret.ts'

const VALUE = 'c4nary+/~"<&>-Ünicode-8f14e45f'
const secrets = [new Secret('another'), new Secret(VALUE)]

const FORMS: Readonly<Record<string, string>> = {
  'as it is': VALUE,
  'in another case': VALUE.toUpperCase(),
  'as JSON': JSON.stringify(VALUE).slice(1, -1),
  'as JSON of Go': JSON.stringify(VALUE)
    .slice(1, -1)
    .replace('<', '\\u003c')
    .replace('&', '\\u0026')
    .replace('>', '\\u003e'),
  'in a URL': encodeURIComponent(VALUE),
  'in hex': Buffer.from(VALUE).toString('hex'),
}

describe('a text that repeats a secret', () => {
  for (const [how, form] of Object.entries(FORMS))
    test(`${how} is told without it`, () => {
      assert.equal(mask(`before ${form} between ${form} after`, secrets), 'before [secret] between [secret] after')
    })

  for (const encoding of ['base64', 'base64url'] as const)
    test(`in ${encoding}, wherever it begins, is told without all but the characters it shares with its neighbours`, () => {
      for (const start of ['', 'x', 'xx', 'xxx'])
        for (const end of ['', 'y', 'yy']) {
          const masked = mask(Buffer.from(`${start}${VALUE}${end}`).toString(encoding), secrets)
          assert.match(masked, /^.{0,6}\[secret\].{0,6}$/)
        }
    })

  test('is left alone where the secret is too short to hide anything', () =>
    assert.equal(mask('a cat', [new Secret('cat'), new Secret('')]), 'a cat'))

  test('is taken literally, whatever the secret holds', () =>
    assert.equal(mask('aaaa a.*b', [new Secret('a.*b')]), 'aaaa [secret]'))
})
