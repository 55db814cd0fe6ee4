import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import * as z from 'zod'
import { Fields, type Values } from '../../src/core/values.ts'
import { SidecarError } from '../../src/errors.ts'
import { FILTERS } from '../../src/text/filters.ts'
import { parseTemplate } from '../../src/text/template.ts'

const NOW = Date.UTC(2026, 10, 26, 18, 5, 9, 42)
const PASSWORD = 'pa"ss\'{{ db.username }}<&>'
const values = {
  db: {
    username: 'ada',
    password: PASSWORD,
    port: 5432,
    tls: false,
    note: null,
    empty: '',
    hosts: ['b.test', 'a.test'],
    more: { deep: { er: 'down' } },
  },
  api: { 'tls.crt': 'PEM', 'ca-bundle': 'CA' },
}
const render = (text: string, given: Values = values) => parseTemplate(text, 'app.conf').render(given, { now: NOW })
const messageOf = (text: string, code: string, given: Values = values) => {
  try {
    render(text, given)
  } catch (error) {
    assert.ok(error instanceof SidecarError)
    assert.equal(error.code, code)
    assert.equal(error.cause, undefined)
    return error.message
  }
  return assert.fail(`${text} is not refused`)
}

describe('a template', () => {
  const rendered: Readonly<Record<string, string>> = {
    'user={{ db.username }}\n': 'user=ada\n',
    '{{ api["tls.crt"] }} {{ api.ca-bundle }} {{ db.more.deep.er }}': 'PEM CA down',
    '{{ db.port }} {{ db.tls }} [{{ db.note }}] {{ db.more }} {{ db.hosts }}':
      '5432 false [] {"deep":{"er":"down"}} ["b.test","a.test"]',
    '{% for h in db.hosts %}{{ forloop.index }}={{ h }}{% unless forloop.last %},{% endunless %}{% endfor %}':
      '1=b.test,2=a.test',
    '{% for p in db.more.deep %}{{ p[0] }}={{ p[1] }}{% endfor %}': 'er=down',
    '{% if db.tls %}tls{% elsif db.port > 1024 and db.username == "ada" %}high{% else %}low{% endif %}': 'high',
    '{% case db.port %}{% when 5432, 5433 %}pg{% else %}other{% endcase %}': 'pg',
    '{% assign hosts = db.hosts | sort %}{{ hosts[0] }} {{ hosts.size }} {{ hosts.last }}': 'a.test 2 b.test',
    '{% capture x %}{{ db.username }}!{% endcapture %}{{ x | upper }}': 'ADA!',
    '{% for i in (1..3) %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}': '12',
    '{% raw %}{{ .Data }}{% endraw %}{% comment %}{{ nothing }}{% endcomment %}': '{{ .Data }}',
    'a\n  {%- if true -%}\n  b\n{%- endif %}': 'ab',
  }
  for (const [text, expected] of Object.entries(rendered))
    it(`becomes text: ${text}`, () => assert.equal(render(text), expected))
  const read: Readonly<Record<string, readonly string[]>> = {
    '{% assign x = db.a %}{% for y in x %}{{ y }}{{ forloop.index }}{{ api["b"] | default: other.c }}{% endfor %}': [
      'api',
      'db',
      'other',
    ],
    '{% if a.x and not b %}{% elsif c == d %}{% else %}{% unless e %}{{ f }}{% endunless %}{% endif %}': [
      'a',
      'b',
      'c',
      'd',
      'e',
      'f',
    ],
    '{% case a.x %}{% when b.y, "c" %}{{ d[e.f] }}{% endcase %}': ['a', 'b', 'd', 'e'],
    '{% capture x %}{{ a.b }}{% endcapture %}{{ x | replace: b.c, d }}{{ ["e"].f }}{{ "g" }}{{ nil }}{{ 1 }}': [
      'a',
      'b',
      'd',
      'e',
    ],
    '{% for x in a.b limit: c %}{% else %}{{ d }}{% endfor %}{% comment %}{{ no }}{% endcomment %}': ['a', 'c', 'd'],
  }
  for (const [text, names] of Object.entries(read))
    it(`says which values it reads: ${text}`, () => assert.deepEqual([...parseTemplate(text, 'x').reads].sort(), names))
  it('prints what a value holds as text, whatever it looks like', () => {
    assert.equal(render('{{ db.password }}'), PASSWORD)
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (password) => {
        for (const text of [
          '{{ db.x }}',
          '{% assign y = db.x %}{{ y }}',
          '{% capture y %}{{ db.x }}{% endcapture %}{{ y }}',
        ])
          assert.equal(render(text, { db: { x: password } }), password)
      }),
    )
  })
  it('gives the same text for the same values', () => {
    const template = parseTemplate('{% assign x = db.hosts | sort %}{{ x | join: "," }} {{ "now" | date }}', 'x')
    assert.equal(template.render(values, { now: NOW }), template.render(values, { now: NOW }))
    assert.deepEqual(values.db.hosts, ['b.test', 'a.test'])
  })
})

describe('what is absent', () => {
  const messages: Readonly<Record<string, string>> = {
    '\n  {{ db.pasword }}':
      'template app.conf:2:6: there is no db.pasword: db has no "pasword", it has username, password, port, tls, note, empty, hosts, more',
    '{{ dbb.x }}': 'template app.conf:1:4: there is no dbb.x: no value is called "dbb", only db, api',
    '{{ db.more.deep.x }}': 'template app.conf:1:4: there is no db.more.deep.x: db.more.deep has no "x", it has er',
    '{{ api.tls.crt }}':
      'template app.conf:1:4: there is no api.tls.crt: api has no "tls", it has tls.crt, ca-bundle; a name with dots is written ["tls.crt"]',
    '{{ db.note.x }}': 'template app.conf:1:4: there is no db.note.x: db.note is null, which has no fields',
    '{{ db.hosts[2] }}':
      'template app.conf:1:4: there is no db.hosts[2]: db.hosts is a list of 2; write a place in it, such as [0]',
    '{% if dbb %}{% endif %}': 'template app.conf:1:7: there is no dbb: no value is called "dbb", only db, api',
    '{% for x in db.none %}{% endfor %}':
      'template app.conf:1:13: there is no db.none: db has no "none", it has username, password, port, tls, note, empty, hosts, more',
    '{{ db.note | required: "write db.note first" }}': 'template app.conf:1:14: write db.note first',
  }
  for (const [text, message] of Object.entries(messages))
    it(`is named with what there is: ${text}`, () => assert.equal(messageOf(text, 'TEMPLATE_FAILED'), message))
  it('is named by the words of the template where a value led there', () => {
    const message = messageOf('{{ db[db.password] }}', 'TEMPLATE_FAILED')
    assert.match(message, /there is no db\[db\.password\]/)
  })
  it('may be asked for by if, unless and default', () => {
    const text =
      '{% if db.x %}y{% endif %}{% unless db.x.y %}n{% endunless %}{{ db.x | default: "d" }}{{ db.note | default: 1 }}'
    assert.equal(render(text), 'nd1')
  })
})

describe('a template that is wrong', () => {
  const messages: Readonly<Record<string, RegExp>> = {
    'a\nb {{ db.x': /:2:3: output .* not closed$/,
    '{% if db.x %}': /:1:1: tag \{% if db\.x %\} not closed$/,
    '{% foo %}': /:1:1: there is no tag "foo"; there are assign, .*unless$/,
    '{% include "x" %}': /there is no tag "include": a template reads no other files$/,
    '{% render "/etc/passwd" %}': /there is no tag "render": a template reads no other files$/,
    '{% layout "x" %}': /there is no tag "layout"/,
    '{{ db.x | toJSON }}': /:1:1: there is no filter "toJSON"; here it is called json$/,
    '{{ db.x | base64Decode }}': /here it is called base64_decode$/,
    '{{ db.x | regexReplaceAll: "a" }}': /patterns could run for ever, so there are none/,
    '{{ db.x | wurst }}': /there is no filter "wurst"; docs\/templates\.md has them all$/,
    '{{ db.x | valueOf }}': /there is no filter "valueOf"/,
    '{{ db.x | where: "a" }}': /there is no filter "where"/,
    '{{ db.x | escape }}': /there is no filter "escape"; nothing is escaped here, so leave it out$/,
    "{% assign x = 'a\" (' %}{% for i in (db.a..3) %}{% endfor %}": /a range takes two whole numbers/,
    '{{ db.x | indent }}': /indent takes 1 argument$/,
    '{{ db.x | upper: 1 }}': /upper takes 0 arguments$/,
    '{{ db.x | required: db.password }}': /required takes its message in quotes$/,
    '{{ db.x db.y }}': /it takes one value, then filters after \|$/,
    '{% if db.x == %}{% endif %}': /it takes one value/,
    '{% if db.x db.y %}{% endif %}': /it takes one value/,
    '{% unless db.x %}{% elsif a b %}{% endunless %}': /it takes one value/,
    '{% if db.x %}{% for y in db.z %}{{ a b }}{% endfor %}{% endif %}': /it takes one value/,
    '{% for i in (1..db.x) %}{% endfor %}': /a range takes two whole numbers, such as \(1\.\.5\)$/,
    '{% for i in (9007199254740992..9007199254740993) %}{% endfor %}': /a range takes two whole numbers/,
    '{{ with secret "x" }}{{ .Data.data.x }}{{ end }}': /this looks like a template of consul-template or Vault Agent/,
    '{{ .Data.data.x }}': /this looks like a template of consul-template or Vault Agent/,
    '{{ range $k, $v := .Data }}{{ end }}': /this looks like a template of consul-template or Vault Agent/,
  }
  for (const [text, message] of Object.entries(messages))
    it(`is refused with its place and what to write: ${text}`, () =>
      assert.match(messageOf(text, 'TEMPLATE_INVALID'), message))
})

describe('a hostile template', () => {
  const reaches = ['constructor', '__proto__', 'prototype', 'toString', 'valueOf', '__defineGetter__', 'then', 'length']
  for (const name of reaches)
    it(`does not reach ${name} of anything`, () => {
      for (const base of ['db', 'db.password', 'db.hosts', 'db.more', 'db.port', 'empty', 'nil', '"x"'])
        for (const text of [`{{ ${base}.${name} }}`, `{{ ${base}["${name}"] }}`])
          assert.match(messageOf(text, 'TEMPLATE_FAILED'), /there is no|a field is absent/)
      assert.match(messageOf(`{{ ${name} }}`, 'TEMPLATE_FAILED'), /no value is called/)
      if (name !== 'length') messageOf(`{% for x in db.hosts %}{{ forloop.${name} }}{% endfor %}`, 'TEMPLATE_FAILED')
    })
  it('finds a field of that name where Vault has one', () => {
    const own: Values = { db: JSON.parse('{"constructor":"a","__proto__":"b","then":"c"}') }
    assert.equal(
      render('{{ db.constructor }}{{ db.__proto__ }}{{ db.then }}{{ db | json }}', own),
      'abc{"constructor":"a","__proto__":"b","then":"c"}',
    )
  })
  const endless: Readonly<Record<string, string>> = {
    'loops in loops': '{% for i in (1..999999) %}{% for j in (1..999999) %}{% endfor %}{% endfor %}',
    'a text that doubles':
      '{% assign s = "0123456789" %}{% for i in (1..99) %}{% assign s = s | append: s %}{% endfor %}',
    'a capture that doubles':
      '{% capture s %}0123456789{% endcapture %}{% for i in (1..99) %}{% capture s %}{{ s }}{{ s }}{% endcapture %}{% endfor %}',
    'a list that doubles': '{% assign s = db.hosts %}{% for i in (1..99) %}{% assign s = s | concat: s %}{% endfor %}',
    'text without end': `{% for i in (1..99999) %}${'x'.repeat(1000)}{% endfor %}`,
    'a replacement that multiplies':
      '{% assign s = "a" %}{% for i in (1..21) %}{% assign s = s | append: s %}{% endfor %}{{ s | replace: "a", s }}',
    'an indent that multiplies':
      '{% capture s %}\n\n{% endcapture %}{% for i in (1..17) %}{% assign s = s | append: s %}{% endfor %}{{ s | replace: "\n", "\nx" | indent: 100 }}',
  }
  for (const [what, text] of Object.entries(endless))
    it(`is stopped: ${what}`, () => {
      const before = process.memoryUsage.rss()
      assert.match(messageOf(text, 'TEMPLATE_FAILED'), /longer than|too long/)
      assert.ok(process.memoryUsage.rss() - before < 600 * 1024 * 1024)
    })
  it('that breaks the engine is told of in words of our own', () => {
    const text = `{% for i in (1..9999) %}${'x'.repeat(99_999)}{% endfor %}`
    assert.equal(messageOf(text, 'TEMPLATE_FAILED'), 'template app.conf:1:25: it cannot be worked out')
  })
  it('is not read when it is too long', () => {
    assert.match(messageOf('x'.repeat(512 * 1024 + 1), 'TEMPLATE_INVALID'), /longer than 524288 characters/)
    assert.match(
      messageOf('{{ db }}'.repeat(20_001), 'TEMPLATE_INVALID'),
      /it has more than 20000 tags, outputs and texts/,
    )
  })
  it('is refused when it nests without end', () => {
    assert.match(messageOf('{% if true %}'.repeat(20_000), 'TEMPLATE_INVALID'), /it is nested too deep$/)
    const deep: unknown = JSON.parse('['.repeat(200) + ']'.repeat(200))
    assert.match(
      messageOf(`{{ db.x | parse_json | json }}`, 'TEMPLATE_FAILED', { db: { x: JSON.stringify(deep) } }),
      /100 deep/,
    )
  })
  it('cannot have what a value holds told in a message', () => {
    const canary = 'c4n4ry'
    for (const name of Object.keys(FILTERS))
      for (const args of ['', ': db.x', ': db.x, db.x', ': 3', ': db.list'])
        for (const input of ['db.x', 'db.list', 'db.map', 'db[db.x]'])
          try {
            render(`{{ ${input} | ${name}${args} }}`, { db: { x: canary, list: [canary], map: { x: canary } } })
          } catch (error) {
            assert.ok(error instanceof SidecarError)
            assert.ok(!error.message.includes(canary), error.message)
          }
  })
})

describe('filters', () => {
  /** The tables of the documentation are the test: what stands there as the result has to come out. */
  const page = readFileSync(new URL('../../docs/templates.md', import.meta.url), 'utf8')
  const documented = z.record(z.string(), Fields).parse(JSON.parse(/```json\n(.*?)```/s.exec(page)?.[1] ?? ''))
  const unescaped = (cell: string) => cell.replaceAll('\\|', '|')
  const rows = [...page.matchAll(/^\| `([a-z0-9_]+)` \| `` (.+?) `` \| `` (.*?) `` \|/gm)]
  it('are all in the documentation, and none besides', () => {
    assert.deepEqual([...new Set(rows.map(([, name]) => name))].sort(), Object.keys(FILTERS).sort())
  })
  for (const [, name, text = '', expected = ''] of rows)
    it(`do what the documentation says: ${text}`, () => {
      assert.ok(text.includes(`| ${name}`))
      assert.equal(render(unescaped(text), documented).replaceAll('\n', '\\n'), expected)
    })
  const ported = [...page.matchAll(/^\| `` (\{\{.+?) `` \| `` (.+?) `` \|$/gm)]
  it('of consul-template have their equivalent here, which can be parsed', () => {
    assert.ok(ported.length > 20)
    for (const [, , text = ''] of ported) parseTemplate(unescaped(text), text)
  })
  const refused: Readonly<Record<string, RegExp>> = {
    '{{ db.password | base64_decode }}': /:1:18: what base64_decode is given is not base64$/,
    '{{ "/+8=" | base64_decode }}': /decodes to bytes that are no UTF-8 text; leave it in base64$/,
    '{{ db.password | parse_json }}': /what parse_json is given is not JSON$/,
    '{{ db.password | squote }}': /holds a single quote, a \\ or a line break; use shell_quote/,
    '{{ db.password | to_int }}': /is no number$/,
    '{{ 1.5 | to_int }}': /is no whole number/,
    '{{ "9007199254740993" | to_int }}': /is no whole number/,
    '{{ db.password | date }}': /is no time; it takes 2026-11-26T18:00:00Z/,
    '{{ "now" | date: "%Q" }}': /the format or the year is unknown/,
    '{{ db.hosts | upper }}': /is a list, not text; see json, join, keys$/,
    '{{ db.username | keys }}': /is text, not a map$/,
    '{{ db.username | join }}': /is text, not a list$/,
    '{{ db.hosts | map: "x" }}': /holds something without that field$/,
    '{{ "[{}]" | parse_json | map: "constructor" }}': /holds something without that field$/,
    '{{ "a" | indent: 101 }}': /argument 1 of indent is no whole number up to 100$/,
    '{{ "%zz" | url_decode }}': /is not percent-encoded UTF-8$/,
    '{{ "a" | replace: "", "b" }}': /argument 1 of replace is empty$/,
    '{{ "a\\u0000" | shell_quote }}': /holds a NUL/,
    '{{ "\\ud800" }}': /the text is not Unicode/,
  }
  for (const [text, message] of Object.entries(refused))
    it(`refuse what does not fit: ${text}`, () => assert.match(messageOf(text, 'TEMPLATE_FAILED'), message))

  const text = fc.string({ unit: 'grapheme' })
  const roundTrips = {
    'base64_encode and base64_decode': '{{ db.x | base64_encode | base64_decode }}',
    'base64url_encode and base64url_decode': '{{ db.x | base64url_encode | base64url_decode }}',
    'url_encode and url_decode': '{{ db.x | url_encode | url_decode }}',
    'json and parse_json': '{{ db.x | json | parse_json }}',
    'split and join': '{{ db.x | split: "a" | join: "a" }}',
  }
  for (const [what, template] of Object.entries(roundTrips))
    it(`${what} give back what they were given`, () =>
      fc.assert(fc.property(text, (x) => render(template, { db: { x } }) === x)))
  it('sort puts numbers by size and all else by its text', () => {
    const given = { db: { x: [10, 9, 1], y: ['b', 'B', 'a'] } }
    assert.equal(render('{{ db.x | sort }}{{ db.y | sort }}', given), '[1,9,10]["B","a","b"]')
  })
  it('sha256 is that of the UTF-8 bytes', () =>
    fc.assert(
      fc.property(
        text,
        (x) => render('{{ db.x | sha256 }}', { db: { x } }) === createHash('sha256').update(x).digest('hex'),
      ),
    ))
  it('PEM blocks are told apart by their kind, whatever stands between them', () => {
    const block = (label: string, content: string) => `-----BEGIN ${label}-----\n${content}\n-----END ${label}-----\n`
    const [leaf, key, ca] = [
      block('CERTIFICATE', 'AA=='),
      block('EC PRIVATE KEY', 'BB=='),
      block('CERTIFICATE', 'CC=='),
    ]
    const given = {
      db: { x: `Bag\n${leaf}\n${key.replaceAll('\n', '\r\n')}text${'\n'}${ca}-----BEGIN CERTIFICATE-----\nDD` },
    }
    assert.equal(render('{{ db.x | pem_certificates }}', given), leaf + ca)
    assert.equal(render('{{ db.x | pem_keys }}', given), key)
    assert.equal(render('{% assign b = db.x | pem_split %}{{ b.size }}{{ b[2] }}', given), `3${ca}`)
  })
})
