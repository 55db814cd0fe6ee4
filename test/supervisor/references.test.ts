import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { SidecarError } from '../../src/errors.ts'
import { fillIn, type Parts, parseReference, type Reference, referencesIn } from '../../src/supervisor/references.ts'

const read = (path: string, field: string, version?: number): Reference => ({
  kind: 'read',
  path,
  field,
  ...(version === undefined ? {} : { version }),
})

describe('a value that is a reference', () => {
  const rows: [value: string, reference: Reference][] = [
    ['vault:secret/data/app#password', read('secret/data/app', 'password')],
    ['vault:secret/data/app#password#3', read('secret/data/app', 'password', 3)],
    ['vault:secret/data/team-a/app#a field of words', read('secret/data/team-a/app', 'a field of words')],
    ['vault:database/creds/app#username', read('database/creds/app', 'username')],
    ['>>vault:gen/password#value', { kind: 'write', path: 'gen/password', field: 'value', data: {} }],
    [
      '>>vault:pki/issue/web#certificate#{"common_name":"a#b","n":{"x":[1]}}',
      { kind: 'write', path: 'pki/issue/web', field: 'certificate', data: { common_name: 'a#b', n: { x: [1] } } },
    ],
    [
      'vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==',
      { kind: 'decrypt', ciphertext: 'vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==' },
    ],
  ]
  for (const [value, reference] of rows) test(value, () => assert.deepEqual(parseReference(value), reference))
})

describe('a value that is none', () => {
  const others = [
    '',
    'vault',
    'vault:',
    'vault:8200',
    'vault:login',
    'https://vault:8200/v1#x',
    ' vault:a/b#c',
    '>vault:a/b#c',
  ]
  for (const value of others) test(JSON.stringify(value), () => assert.equal(parseReference(value), undefined))
})

describe('a malformed reference is said to be so:', () => {
  const rows: [value: string, says: RegExp][] = [
    ['vault:secret/data/app', /^vault:secret\/data\/app: the field is missing; write vault:PATH#FIELD$/],
    ['vault:secret/data/app#', /the field is missing/],
    ['vault:#password', /must be a path of Vault, such as secret\/data\/app/],
    ['vault:/secret/data/app#x', /must be a path/],
    ['vault:secret//app#x', /must be a path/],
    ['vault:secret/../sys/raw#x', /must be a path/],
    ['vault:secret/data/app?version=2#x', /must be a path/],
    ['vault:secret/data/my app#x', /must be a path/],
    ['vault:secret/data/app#password\n', /must not begin or end in white space/],
    ['vault:secret/data/app#password#0', /the version must be a whole number from 1 on/],
    ['vault:secret/data/app#password#latest', /the version must be a whole number/],
    ['vault:secret/data/app#password#1#2', /the version must be a whole number/],
    ['vault:secret/data/app#${.user | urlquery}', /templates of Go are not read here; put several references/],
    ['>>vault:transit/decrypt/k#plaintext#{broken', /must be a JSON object/],
    ['>>vault:transit/decrypt/k#plaintext#[1]', /must be a JSON object/],
    ['vault:v1:not base64', /must be base64/],
  ]
  for (const [value, says] of rows)
    test(JSON.stringify(value), () => assert.throws(() => parseReference(value), { name: 'RangeError', message: says }))

  test('without what may be a secret', () => {
    const value = '>>vault:transit/encrypt/k#ciphertext#{"plaintext":"hunter2"'
    assert.throws(
      () => parseReference(value),
      (error) => error instanceof RangeError && !error.message.includes('hunter2'),
    )
  })
})

describe('references in an environment', () => {
  const parts = (value: string): Parts | undefined => referencesIn({ X: value }).get('X')

  test('are told by variable; what has none is not there', () => {
    const env = { A: 'vault:secret/data/a#x', B: 'plain', C: undefined, D: '${HOME} vault:a/b#c', E: 'vault:8200' }
    assert.deepEqual([...referencesIn(env)], [['A', [read('secret/data/a', 'x')]]])
  })

  test('may stand within a text, several of them', () => {
    assert.deepEqual(parts('redis://${vault:db/creds/r#username}:${vault:db/creds/r#password#2}@host/}'), [
      'redis://',
      read('db/creds/r', 'username'),
      ':',
      read('db/creds/r', 'password', 2),
      '@host/}',
    ])
  })

  test('that write may hold braces', () => {
    const data = { a: { b: '}' } }
    assert.deepEqual(parts(`<\${>>vault:x/y#f#${JSON.stringify(data)}}>`), [
      '<',
      { kind: 'write', path: 'x/y', field: 'f', data },
      '>',
    ])
  })

  test('may be ciphertexts', () => {
    assert.deepEqual(parts('a ${vault:v2:AAAA+/==} b'), [
      'a ',
      { kind: 'decrypt', ciphertext: 'vault:v2:AAAA+/==' },
      ' b',
    ])
  })

  test('leave alone what is no reference within a text', () => {
    for (const value of ['${vault:8200}', '${vault:-default}', '$vault:a/b#c', '${VAULT:a/b#c}'])
      assert.equal(parts(value), undefined, value)
  })

  test('all that are malformed are told at once, each with its variable and nothing of the text around', () => {
    const env = {
      DB_URL: 'postgres://app:hunter2@${vault:secret/data/app}/db',
      API: 'vault:secret/data/api#k#x',
      OK: 'vault:a/b#c',
      OPEN: '${vault:a/b#c hunter2',
    }
    assert.throws(
      () => referencesIn(env),
      (error) => {
        assert.ok(error instanceof SidecarError && error.code === 'CONFIG_INVALID')
        assert.match(error.message, /environment variable DB_URL: vault:secret\/data\/app: the field is missing/)
        assert.match(error.message, /environment variable API: vault:secret\/data\/api#k: the version must/)
        assert.match(error.message, /environment variable OPEN: \$\{vault:a\/b#c lacks its closing \}/)
        assert.doesNotMatch(error.message, /hunter2|OK:/)
        return true
      },
    )
  })

  test('to the token of certferry are refused', () => {
    assert.throws(() => referencesIn({ VAULT_TOKEN: 'vault:login' }), /the token of certferry, which no command gets/)
  })

  test('are filled in, and what is filled in is never read as a reference', () => {
    const found = parts('a ${vault:x/y#one} b ${vault:x/y#two}') ?? []
    const values: Record<string, string> = { one: '${vault:x/y#two}', two: '$& $1' }
    const lookUp = (reference: Reference) => (reference.kind === 'read' ? (values[reference.field] ?? '') : '')
    assert.equal(fillIn(found, lookUp), 'a ${vault:x/y#two} b $& $1')
  })

  test('any text is read in time, and either as it is or with an error that says why', () => {
    const piece = fc.oneof(
      fc.constantFrom('${vault:', '${>>vault:', 'vault:', '>>vault:', '}', '#', '/', 'a/b', '{"a":1}', '${'),
      fc.string(),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const value = pieces.join('')
        try {
          const found = parts(value)
          if (found) assert.ok(found.some((part) => typeof part !== 'string'))
        } catch (error) {
          assert.ok(error instanceof SidecarError, String(error))
        }
      }),
      { numRuns: 500 },
    )
  })
})
