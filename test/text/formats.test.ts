import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { parseEnv } from 'node:util'
import fc from 'fast-check'
import { parse } from 'yaml'
import type { Json } from '../../src/core/values.ts'
import { SidecarError } from '../../src/errors.ts'
import { DOTENV_READERS, type DotenvReader, toDotenv } from '../../src/text/dotenv.ts'
import { documentOf, type Entries, entriesOf } from '../../src/text/entries.ts'
import { toJson, toYaml } from '../../src/text/formats.ts'
import { toJavaProperties } from '../../src/text/java-properties.ts'
import { toShellEnv } from '../../src/text/shell-env.ts'
import { readEnvironmentFile } from './environment-file.ts'
import { readProperties } from './properties-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-text-'))
after(() => rmSync(folder, { recursive: true }))
const written = (text: string) => {
  const file = join(folder, 'file')
  writeFileSync(file, text)
  return file
}

/** Whatever some reader takes for something else, and ordinary text. */
const PIECES = [
  ...[
    'a',
    'n',
    't',
    'u0041',
    '0',
    '9',
    ' ',
    '\n',
    '\n\n',
    '\t',
    '\f',
    '\r',
    '\r\n',
    '\u0001',
    '\u007f',
    '\u0085',
    '\u2028',
    '\ufeff',
    '\uffff',
  ],
  ...[
    "'",
    '"',
    '`',
    '\\',
    '\\n',
    '$',
    '${a}',
    '$(a)',
    '#',
    ' # ',
    '=',
    ':',
    '!',
    '~',
    '*',
    ';',
    '&',
    '|',
    '%',
    '{',
    '}',
    '(',
    '-',
    '--- ',
    '? ',
    '- ',
  ],
  ...[
    'export ',
    'yes',
    'null',
    '0x1',
    '1:30',
    '0755',
    '1e3',
    '.inf',
    '<<',
    '&a',
    '*a',
    '!!x',
    'é',
    '😀',
    '-----BEGIN X-----\n',
  ],
]
const text = fc.oneof(
  fc.array(fc.constantFrom(...PIECES), { maxLength: 10 }).map((pieces) => pieces.join('')),
  fc.string({ unit: 'grapheme' }),
)
const named = (values: readonly string[]): Entries => new Map(values.map((value, place) => [`V${place}`, value]))

/** For readers that are programs: few runs, many values each. */
const batches = fc.array(text, { minLength: 100, maxLength: 200, size: 'max' })
const FEW = { numRuns: 8 }

const sourced = (shell: string, file: string): Map<string, string> => {
  const output = execFileSync(shell, ['-c', 'set -a; . "$0"; exec env -0', file], { encoding: 'utf8' })
  return new Map(
    output.split('\0').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  )
}
const asRead = (entries: Entries, found: ReadonlyMap<string, string>) =>
  assert.deepEqual(
    [...entries.keys()].map((name) => [name, found.get(name)]),
    [...entries],
  )
const isWritable = (value: string, reader: DotenvReader) => {
  try {
    toDotenv(new Map([['A', value]]), reader)
    return true
  } catch {
    return false
  }
}

describe('entries', () => {
  const values = {
    db: { username: 'ada', port: 5432, note: null, hosts: ['a', 'b'], more: { 'si-ze': 'L', none: {} } },
    'api-2': { 'tls.crt': 'PEM' },
  }
  it('are all fields, named by value and field', () => {
    assert.deepEqual(
      [...entriesOf(values)],
      [
        ['DB_USERNAME', 'ada'],
        ['DB_PORT', '5432'],
        ['DB_NOTE', ''],
        ['DB_HOSTS', '["a","b"]'],
        ['DB_MORE_SI_ZE', 'L'],
        ['DB_MORE_NONE', '{}'],
        ['API_2_TLS_CRT', 'PEM'],
      ],
    )
  })
  it('are the fields that are asked for, in that order', () => {
    const spec = { PORT: 'db.port', CRT: 'api-2["tls.crt"]', SIZE: 'db.more.si-ze' }
    assert.deepEqual(
      [...entriesOf(values, spec)],
      [
        ['PORT', '5432'],
        ['CRT', 'PEM'],
        ['SIZE', 'L'],
      ],
    )
    assert.deepEqual(documentOf(values, spec), { PORT: 5432, CRT: 'PEM', SIZE: 'L' })
    assert.equal(documentOf(values), values)
  })
  it('fail where a field is absent', () => {
    assert.throws(() => entriesOf(values, { A: 'db.x' }), { code: 'FIELD_MISSING', message: /db has no "x"/ })
    assert.throws(() => documentOf(values, { A: 'db.x' }), { code: 'FIELD_MISSING' })
  })
  it('fail where two fields come to one name, and name both', () => {
    assert.throws(() => entriesOf({ db: { 'a-b': '1', a: { b: '2' } } }), {
      code: 'VALUE_UNWRITABLE',
      message:
        'db.a-b and db.a.b would both be called DB_A_B; name them with entries, such as { A: db.a-b, B: db.a.b }',
    })
  })
  it('begin with no digit', () => assert.deepEqual([...entriesOf({ '1': { a: 'x' } }).keys()], ['_1_A']))
})

describe('dotenv', () => {
  it('is bare where it can be', () => {
    assert.equal(
      toDotenv(
        new Map([
          ['A', 'https://x.test:1/a,b@c+d%20e'],
          ['B', ''],
        ]),
      ),
      "A=https://x.test:1/a,b@c+d%20e\nB=''\n",
    )
  })
  it('keeps line breaks as they are, in quotes', () => {
    assert.equal(
      toDotenv(
        new Map([
          ['A', 'x\ny'],
          ['B', "it's\n"],
        ]),
      ),
      "A='x\ny'\nB=\"it's\n\"\n",
    )
  })
  for (const reader of ['common', 'node'] as const)
    it(`for ${reader} comes back from Node as it was`, () => {
      fc.assert(
        fc.property(fc.array(text), (values) => {
          const entries = named(values.filter((value) => isWritable(value, reader)))
          asRead(
            entries,
            new Map(Object.entries(parseEnv(toDotenv(entries, reader))).map(([name, value]) => [name, value ?? ''])),
          )
        }),
      )
    })
  it('for common comes back from node --env-file as it was', () => {
    fc.assert(
      fc.property(batches, (values) => {
        const entries = named(values.filter((value) => isWritable(value, 'common')))
        const script = 'process.stdout.write(JSON.stringify(Object.entries(process.env)))'
        const output = execFileSync(process.execPath, [`--env-file=${written(toDotenv(entries))}`, '-e', script], {
          encoding: 'utf8',
        })
        asRead(entries, new Map(JSON.parse(output)))
      }),
      { numRuns: 2 },
    )
  })
  for (const reader of ['common', 'systemd'] as const) {
    for (const shell of ['sh', 'bash'])
      it(`for ${reader} comes back from ${shell} as it was`, () => {
        fc.assert(
          fc.property(batches, (values) => {
            const entries = named(values.filter((value) => isWritable(value, reader)))
            asRead(entries, sourced(shell, written(toDotenv(entries, reader))))
          }),
          FEW,
        )
      })
    it(`for ${reader} comes back as it was where it is read as systemd.exec says`, () => {
      fc.assert(
        fc.property(fc.array(text), (values) => {
          const entries = named(values.filter((value) => isWritable(value, reader)))
          asRead(entries, readEnvironmentFile(toDotenv(entries, reader)))
        }),
      )
    })
  }
  it('for docker is what stands after the first =, line by line', () => {
    fc.assert(
      fc.property(fc.array(text), (values) => {
        const entries = named(values.filter((value) => isWritable(value, 'docker')))
        const lines = toDotenv(entries, 'docker').split('\n').slice(0, -1)
        asRead(
          entries,
          new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])),
        )
      }),
    )
  })
  it('for systemd carries whatever a variable can', () => {
    fc.assert(fc.property(text, (value) => isWritable(value, 'systemd') === !value.includes('\0')))
  })
  const unwritable: readonly [DotenvReader, string, RegExp][] = [
    [
      'common',
      'it\'s "$x"',
      /^the value of A holds a CR, or a single quote together with one of " \\ \$ `.*name the reader \(node, systemd\)$/,
    ],
    ['common', 'a\rb', /^the value of A holds a CR/],
    ['node', `'"\``, /^the value of A holds a CR, or all kinds of quotes/],
    ['docker', 'a\nb', /^the value of A holds a line break, which docker --env-file cannot read; encode it in base64/],
    ['systemd', 'a\0b', /^the value of A holds a NUL, which no variable can; encode it in base64$/],
    ['common', '\ud800', /^the value of A is not Unicode text/],
  ]
  for (const [reader, value, message] of unwritable)
    it(`for ${reader} is refused for ${JSON.stringify(value)}, with the way out`, () =>
      assert.throws(() => toDotenv(new Map([['A', value]]), reader), { code: 'VALUE_UNWRITABLE', message }))
  for (const name of ['', '1A', 'A-B', 'A B', 'A=B', 'Ä', 'A\n', 'export A'])
    it(`is refused for the name ${JSON.stringify(name)}`, () => {
      for (const write of [toDotenv, toShellEnv])
        assert.throws(() => write(new Map([[name, 'x']])), {
          code: 'VALUE_UNWRITABLE',
          message: /is no name of a variable/,
        })
    })
  it('never tells a value in a message', () => {
    const canary = 'c4n4ry'
    for (const reader of DOTENV_READERS)
      for (const value of [`${canary}\0`, `${canary}\r\n'"\`$\\`, `${canary}\ud800`])
        try {
          toDotenv(new Map([['A', value]]), reader)
        } catch (error) {
          assert.ok(error instanceof SidecarError && !error.message.includes(canary))
        }
  })
})

describe('a file of exports', () => {
  for (const shell of ['sh', 'bash'])
    it(`comes back from ${shell} as it was, whatever it holds`, () => {
      fc.assert(
        fc.property(batches, (values) => asRead(named(values), sourced(shell, written(toShellEnv(named(values)))))),
        FEW,
      )
    })
})

describe('Java properties', () => {
  const entries = fc.array(fc.tuple(text, text), { size: 'medium' }).map((pairs): Entries => new Map(pairs))
  it('are ASCII', () => {
    assert.equal(
      toJavaProperties(
        new Map([
          ['db url', ' a=b é\n'],
          ['#k!:=', 'x '],
        ]),
      ),
      'db\\ url=\\ a\\=b \\u00e9\\n\n\\#k\\!\\:\\==x \n',
    )
  })
  it('come back as they were where they are read as the documentation of Properties says', () => {
    fc.assert(
      fc.property(entries, (given) => assert.deepEqual(readProperties(Buffer.from(toJavaProperties(given))), given)),
    )
  })
  const hasJava = spawnSync('java', ['--version']).status === 0
  it('come back from java.util.Properties as they were', { skip: !hasJava && 'there is no java here' }, () => {
    const [given = new Map()] = fc.sample(
      fc
        .array(fc.tuple(text, text), { minLength: 2000, maxLength: 2000, size: 'max' })
        .map((pairs): Entries => new Map(pairs)),
      1,
    )
    const program = new URL('./PropertiesToHex.java', import.meta.url).pathname
    const output = execFileSync('java', ['-XX:TieredStopAtLevel=1', program, written(toJavaProperties(given))], {
      encoding: 'utf8',
    })
    const fromHex = (hex: string) => hex.replace(/.{4}/g, (unit) => String.fromCharCode(Number.parseInt(unit, 16)))
    const found = output
      .trimEnd()
      .split('\n')
      .map((line) => line.split(' ').map(fromHex))
    asRead(given, new Map(found.map(([key = '', value = '']) => [key, value])))
  })
})

describe('documents', () => {
  const json = fc.letrec<{ node: Json }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 4 },
      text,
      fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => (Object.is(number, -0) ? 0 : number)),
      fc.constantFrom(null, true, false, 0, -1, 5432, 1e21, 1e-9),
      fc.array(tie('node'), { maxLength: 4 }),
      fc.array(fc.tuple(text, tie('node')), { maxLength: 4 }).map((pairs) => Object.fromEntries(pairs)),
    ),
  })).node
  it('in JSON come back as they were', () => {
    fc.assert(
      fc.property(json, (given) => assert.deepEqual(JSON.parse(toJson(given)), JSON.parse(JSON.stringify(given)))),
    )
  })
  for (const version of ['1.1', '1.2'] as const)
    it(`in YAML come back from a reader of YAML ${version} as they were`, () => {
      fc.assert(
        fc.property(json, (given) => assert.deepEqual(parse(toYaml(given), { version }), given)),
        { numRuns: 300 },
      )
    })
  it('in YAML are what people expect', () => {
    const given = { db: { user: 'ada', no: 'no', hosts: ['a', { b: 1 }], none: [], 'a b': null }, 'x.y-z': true }
    const expected = [
      'db:',
      '  user: "ada"',
      '  "no": "no"',
      '  hosts:',
      '    - "a"',
      '    -',
      '      b: 1',
      '  none: []',
      '  "a b": null',
      'x.y-z: true',
    ]
    assert.equal(toYaml(given), `${expected.join('\n')}\n`)
  })
  it('in YAML escape and mark what only some readers understand without it', () => {
    assert.equal(toYaml('\u007f\u0085\u2028\u2029\ufeff\uffff'), '"\\u007f\\u0085\\u2028\\u2029\\ufeff\\uffff"\n')
    assert.equal(toYaml([1e21, 1e-9, 1.5e300]), '- 1.0e+21\n- 1.0e-9\n- 1.5e+300\n')
    const long = 'k'.repeat(2000)
    assert.equal(toYaml({ a: { [long]: 1 } }), `a:\n  ? ${long}\n  : 1\n`)
  })
  it('in YAML are refused for what is no Unicode, with the path', () => {
    assert.throws(() => toYaml({ db: { x: ['a', '\ud800'] } }), {
      code: 'VALUE_UNWRITABLE',
      message: /^db\.x\.1 is not Unicode text/,
    })
  })
  it('end with a line break', () => {
    for (const given of [{}, [], 'x', null, { a: 1 }]) assert.match(toYaml(given) + toJson(given), /^[^\n].*\n$/s)
  })
})

it('every format leaves files that can be read as UTF-8', () => {
  const entries = named(['é😀', '\u0085'])
  for (const content of [
    toDotenv(entries),
    toShellEnv(entries),
    toJavaProperties(entries),
    toYaml(Object.fromEntries(entries)),
  ])
    assert.equal(readFileSync(written(content), 'utf8'), content)
})
