import assert from 'node:assert/strict'
import { parseEnv } from 'node:util'
import { parse } from 'yaml'
import { describePath, Fields, lookUp, textOf, type Values } from '../../src/core/values.ts'
import { DOTENV_READERS, toDotenv } from '../../src/text/dotenv.ts'
import { documentOf, entriesOf } from '../../src/text/entries.ts'
import { FILTERS, LONGEST_TEXT } from '../../src/text/filters.ts'
import { toYaml } from '../../src/text/formats.ts'
import { toJavaProperties } from '../../src/text/java-properties.ts'
import { toShellEnv } from '../../src/text/shell-env.ts'
import { parseTemplate } from '../../src/text/template.ts'
import { type Mutator, pick, replaced } from '../mutate.ts'
import { attempt, CANARY, type OpenTarget } from '../target.ts'

const NOW = Date.UTC(2027, 0, 1)
const SEPARATOR = '\n---\n'

/**
 * A template and, after a line of dashes, what a field of Vault holds: refused in order, or text that is the same each time and that nothing
 * but own fields went into. The values are written in every format as well.
 */
export const openTemplate: OpenTarget = async () => ({
  seeds: SEEDS.map((seed) => Buffer.from(seed)),
  dictionary: DICTIONARY,
  structured: changeExpression,
  run: async (input) => {
    const [text = '', json = ''] = input.toString().split(SEPARATOR)
    const values = frozen(valuesOf(json))
    render(text, values)
    write(values)
    assert.equal(Object.keys(Object.prototype).length, 0, 'Object.prototype was changed')
  },
  [Symbol.asyncDispose]: async () => {},
})

function render(text: string, values: Values): void {
  const template = attempt(() => parseTemplate(text, 'fuzz.tpl'))
  const rendered = template && attempt(() => template.render(values, { now: NOW }))
  if (!template || rendered === undefined) return
  assert.ok(rendered.length <= LONGEST_TEXT)
  assert.ok(
    !ENGINE.test(rendered) || ENGINE.test(text) || ENGINE.test(JSON.stringify(values)),
    'something of the engine',
  )
  assert.equal(
    attempt(() => template.render(values, { now: NOW })),
    rendered,
  )
  for (const name of template.reads) assert.equal(typeof name, 'string')
}

/** What could only come from functions and from objects that are no data. */
const ENGINE = /native code|\[object |function|=>|class |Infinity|NaN/

function write(values: Values): void {
  const yaml = attempt(() => toYaml(documentOf(values)))
  if (yaml !== undefined) assert.deepEqual(parse(yaml, { maxAliasCount: 0 }), JSON.parse(JSON.stringify(values)))
  const entries = attempt(() => entriesOf(values))
  if (!entries) return
  for (const reader of DOTENV_READERS)
    for (const [name, value] of entries) {
      const line = attempt(() => toDotenv(new Map([[name, value]]), reader))
      if (line !== undefined && (reader === 'common' || reader === 'node'))
        assert.deepEqual(parseEnv(line), { [name]: value })
    }
  attempt(() => toShellEnv(entries))
  // biome-ignore lint/suspicious/noControlCharactersInRegex: there must be none
  assert.match(toJavaProperties(entries), /^[\x0a\x20-\x7e]*$/)
  for (const name of Object.keys(values.db ?? {}))
    assert.equal(typeof textOf(lookUp(values, describePath(['db', name]))), 'string')
}

function valuesOf(json: string): Values {
  const parsed = Fields.safeParse(attemptJson(json))
  return { db: parsed.success ? parsed.data : { password: CANARY, hosts: ['a', 'b'] }, api: { 'tls.crt': 'PEM' } }
}

function attemptJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Whoever changes a value is found out. */
function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  for (const inner of Object.values(value)) frozen(inner)
  return Object.freeze(value)
}

/** Puts a word of the language into a tag or an output, or wraps a piece in one. */
const changeExpression: Mutator = (input, { random, dictionary }) => {
  const text = input.toString('latin1')
  const tags = [...text.matchAll(/\{[{%]-?|[|,:.[\]]|-?[%}]\}/g)]
  if (tags.length === 0 || random() < 0.2)
    return Buffer.from(`${text.slice(0, 40)}{{ ${pick(dictionary, random)} }}${text.slice(40)}`, 'latin1')
  const { index, 0: mark } = pick(tags, random)
  return replaced(input, index + mark.length, 0, ` ${pick(dictionary, random)} `)
}

const DICTIONARY = [
  ...Object.keys(FILTERS).flatMap((name) => [`| ${name}`, `| ${name}: db.password`, `| ${name}: ", "`, `| ${name}: 3`]),
  ...[
    'if',
    'unless',
    'elsif',
    'else',
    'endif',
    'endunless',
    'case',
    'when',
    'endcase',
    'for',
    'endfor',
    'break',
    'continue',
  ],
  ...[
    'assign',
    'capture',
    'endcapture',
    'comment',
    'endcomment',
    'raw',
    'endraw',
    'include',
    'render',
    'layout',
    'liquid',
  ],
  ...['{{', '}}', '{%', '%}', '{%-', '-%}', '{{-', '-}}', '{% raw %}', '{% endraw %}', '{% endfor %}', '{% endif %}'],
  ...['{% for x in db %}', '{% for x in db.hosts %}', '{% for i in (1..999999) %}', '{% assign s = s | append: s %}'],
  ...[
    'db',
    'db.password',
    'db.hosts',
    'db["password"]',
    'db[db.password]',
    'api["tls.crt"]',
    'forloop',
    'forloop.index',
    'x[0]',
  ],
  ...[
    'constructor',
    '__proto__',
    'prototype',
    'toString',
    'valueOf',
    'hasOwnProperty',
    'size',
    'first',
    'last',
    'then',
    'next',
  ],
  ...[
    'nil',
    'empty',
    'blank',
    'true',
    'false',
    'and',
    'or',
    'not',
    'contains',
    '==',
    '!=',
    '<=',
    '(1..3)',
    '(1..db.password)',
  ],
  ...[
    '9007199254740992',
    '-1',
    '1e308',
    '0.1',
    '"now"',
    '"%Y-%j"',
    '"{{ db.password }}"',
    "'",
    '"',
    '\\',
    '\\u0000',
    '.',
    '|',
    ':',
  ],
  ...[
    '\n---\n',
    `"${CANARY}"`,
    '"\\ud800"',
    '{"a":',
    '[[',
    'null',
    '"__proto__":',
    '-----BEGIN CERTIFICATE-----\\n',
    '\\u2028',
    '\\r',
  ],
]

const SEEDS = [
  `user={{ db.username }}\npassword={{ db.password | json }}\n${SEPARATOR}{"username":"ada","password":"${CANARY}"}`,
  `{% for h in db.hosts %}{{ forloop.index }}:{{ h | upper }}{% unless forloop.last %},{% endunless %}{% endfor %}${SEPARATOR}{"hosts":["a.test","b.test"]}`,
  `{% if db.tls and db.port > 1024 %}{{ db | yaml | indent: 2 }}{% else %}{{ db.note | default: "none" }}{% endif %}${SEPARATOR}{"tls":true,"port":5432,"note":null}`,
  `{% assign parts = db.bundle | pem_split %}{% for p in parts %}{{ p | base64_encode }}{% endfor %}{{ db.bundle | pem_keys }}${SEPARATOR}{"bundle":"-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n"}`,
  `{% capture x %}{{ db.a.b["c.d"] }}{% endcapture %}{{ x | replace: "a", "b" | split: "," | sort | join: ";" }}{{ "now" | date: "%F" }}${SEPARATOR}{"a":{"b":{"c.d":"z,a"}}}`,
  `{% case db.kind %}{% when "a", "b" %}1{% when 2 %}2{% else %}{{ db.json | parse_json | keys | first }}{% endcase %}${SEPARATOR}{"kind":2,"json":"{\\"k\\":[1]}","__proto__":{"x":1},"a-b":1,"it's":"$x 'y' \\"z\\""}`,
  `{% raw %}{{ db }}{% endraw %}{%- comment %} {{ (1..2) }} {% endcomment -%}{{ db.size }}${SEPARATOR}{"size":3}`,
]
