import assert from 'node:assert/strict'
import { test } from 'node:test'
import { identifierOf } from '../../src/acme/ari.ts'

test('a certificate is named as in the example of RFC 9773 §4.1', () => {
  const keyId = '69885B6B87464041E1B37B847BA0AE2CDE01C8D4'
  for (const serial of ['0087654321', '87654321'])
    assert.equal(identifierOf(keyId, serial), 'aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE')
})

test('a serial number of an odd count of digits, or without the first bit, is whole', () => {
  assert.equal(identifierOf('00', '123'), 'AA.ASM')
  assert.equal(identifierOf('00', '7F'), 'AA.fw')
})
