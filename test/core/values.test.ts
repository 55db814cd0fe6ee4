import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { FieldPath, lookUp, parseFieldPath, textOf } from '../../src/core/values.ts'
import { SidecarError } from '../../src/errors.ts'

const values = {
  db: { username: 'ada', password: 's3cret', port: 5432, tls: false, note: null, hosts: ['a.test', 'b.test'] },
  api: { 'tls.crt': 'PEM', 'ca-bundle': 'CA', 'a "b"': 'quoted', more: { deep: { er: 'down' } } },
}

describe('paths to fields', () => {
  const paths = {
    'db.password': 's3cret',
    'db.hosts[1]': 'b.test',
    'api.ca-bundle': 'CA',
    'api["tls.crt"]': 'PEM',
    "api['tls.crt']": 'PEM',
    'api["a \\"b\\""]': 'quoted',
    'api.more["deep"].er': 'down',
    '["db"].username': 'ada',
    'db.tls': false,
    'db.note': null,
  }
  for (const [path, expected] of Object.entries(paths))
    it(`lead to what lies there: ${path}`, () => assert.equal(lookUp(values, path), expected))
  it('lead to whole values and lists too', () => {
    assert.deepEqual(lookUp(values, 'db.hosts'), ['a.test', 'b.test'])
    assert.deepEqual(lookUp(values, 'db'), values.db)
  })
  for (const path of ['', '.', 'db.', '.db', 'db..x', 'db password', 'db["x', 'db[x]', 'db[-1]', 'db]', 'db."x"'])
    it(`are refused when written ${JSON.stringify(path)}`, () => {
      assert.throws(() => parseFieldPath(path), RangeError)
      assert.match(FieldPath.safeParse(path).error?.issues[0]?.message ?? '', /write it as db\.password/)
    })
  it('reach a field whatever it is called', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (name) => {
        const own = JSON.parse(`{"db":{${JSON.stringify(name)}:"found"}}`)
        return lookUp(own, `db["${name.replace(/["\\]/g, '\\$&')}"]`) === 'found'
      }),
    )
  })
})

describe('what is absent', () => {
  const messages = {
    'db.pasword': 'there is no db.pasword: db has no "pasword", it has username, password, port, tls, note, hosts',
    'dbb.password': 'there is no dbb.password: no value is called "dbb", only db, api',
    'api.tls.crt':
      'there is no api.tls.crt: api has no "tls", it has tls.crt, ca-bundle, a "b", more; a name with dots is written ["tls.crt"]',
    'db.password.length': 'there is no db.password.length: db.password is text, which has no fields',
    'db.note.x': 'there is no db.note.x: db.note is null, which has no fields',
    'db.hosts[2]': 'there is no db.hosts[2]: db.hosts is a list of 2; write a place in it, such as [0]',
    'db.hosts.length': 'there is no db.hosts.length: db.hosts is a list of 2; write a place in it, such as [0]',
    'db.constructor':
      'there is no db.constructor: db has no "constructor", it has username, password, port, tls, note, hosts',
    'db.__proto__':
      'there is no db.__proto__: db has no "__proto__", it has username, password, port, tls, note, hosts',
  }
  for (const [path, message] of Object.entries(messages))
    it(`is named with what there is instead: ${path}`, () =>
      assert.throws(() => lookUp(values, path), { name: 'SidecarError', code: 'FIELD_MISSING', message }))
  it('is told of many fields by the first of them', () => {
    const many = { db: Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`f${index}`, ''])) }
    assert.throws(() => lookUp(many, 'db.x'), /f0, .*, f19 and 10 more$/)
  })
  it('never tells what the fields hold', () => {
    const canary = 'c4n4ry-value'
    const json = fc.letrec((tie) => ({
      node: fc.oneof(
        fc.constant(canary),
        fc.array(tie('node'), { maxLength: 3 }),
        fc.dictionary(fc.string(), tie('node'), { maxKeys: 3 }),
      ),
    })).node
    fc.assert(
      fc.property(fc.dictionary(fc.string(), json), fc.string(), (db, path) => {
        try {
          lookUp({ db: JSON.parse(JSON.stringify(db)) }, `db.${path}`)
        } catch (error) {
          assert.ok(error instanceof SidecarError)
          assert.ok(!error.message.includes(canary))
        }
      }),
    )
  })
})

describe('a piece of JSON as text', () => {
  it('is text as it is, numbers and booleans as JSON has them, nothing for null, JSON for lists and maps', () => {
    const texts = ['a"b\n', 5432, 1e21, -0.5, true, null, ['a', 1], { a: null }].map(textOf)
    assert.deepEqual(texts, ['a"b\n', '5432', '1e+21', '-0.5', 'true', '', '["a",1]', '{"a":null}'])
  })
})
