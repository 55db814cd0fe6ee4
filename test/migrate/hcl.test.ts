import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isBlock, parseHcl, type Value } from '../../src/migrate/hcl.ts'

/** As hashicorp/hcl v1 has it: each item is its keys and its value. */
const plain = (value: Value): unknown =>
  isBlock(value)
    ? value.items.map(({ keys, value }) => [...keys, plain(value)])
    : Array.isArray(value)
      ? value.map(plain)
      : value
const read = (text: string) => plain(parseHcl(text, 'agent.hcl'))
const complaint = (text: string): string => {
  try {
    return JSON.stringify(read(text))
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** The right side is what hashicorp/hcl v1.0.1-vault-7 made of the left side. */
const READINGS: readonly (readonly [string, string, unknown])[] = [
  ['comments of three kinds', '# a\n// b\n/* c\n d */ x = 1 # e\n', [['x', 1]]],
  [
    'blocks with and without labels',
    's "f" {}\ns { type = "g" }\ns "f" { x = 1 }',
    [
      ['s', 'f', []],
      ['s', [['type', 'g']]],
      ['s', 'f', [['x', 1]]],
    ],
  ],
  [
    'a block on one line, with and without commas',
    'c = { path = "/a" mode = 0640, x = 1 }',
    [
      [
        'c',
        [
          ['path', '/a'],
          ['mode', 416],
          ['x', 1],
        ],
      ],
    ],
  ],
  [
    'octal, hexadecimal, fractions and exponents',
    'a = 0600\nb = 0x1F\nc = -3\nd = 1.5\ne = 0.5e-2',
    [
      ['a', 384],
      ['b', 31],
      ['c', -3],
      ['d', 1.5],
      ['e', 0.005],
    ],
  ],
  ['lists, with a comma at the end', 'a = ["sh", "-c", 1, true,]', [['a', ['sh', '-c', 1, true]]]],
  ['escapes', String.raw`a = "\" \\ \t \n \u00e9 \x41 \101"`, [['a', '" \\ \t \n é A A']]],
  ['what stands in ${ } as it is', 'a = "x ${ "y" } \\" z"', [['a', 'x ${ "y" } " z']]],
  ['a heredoc', 'a = <<EOT\n{{ x }}\n  ${y} "z"\nEOT\n', [['a', '{{ x }}\n  ${y} "z"\n']]],
  ['a heredoc whose end is indented', 'a = <<EOT\nx\n  EOT\n', [['a', 'x\n  ']]],
  ['an indented heredoc', 'a = <<-EOT\n    x\n      y\n    EOT\n', [['a', 'x\n  y\n']]],
  [
    'an indented heredoc with a line that is less indented',
    'a = <<-EOT\n  x\n    y\n    EOT\n',
    [['a', '  x\n    y\n']],
  ],
  ['a heredoc of another word', 'a = <<EOT\nEOT2\n EOT x\nEOT\n', [['a', 'EOT2\n EOT x\n']]],
  [
    'line breaks of Windows',
    'a = <<EOT\r\nx\r\nEOT\r\nb = 1\r\n',
    [
      ['a', 'x\n'],
      ['b', 1],
    ],
  ],
  ['names with letters of all kinds', 'é-1.a_b = "x"', [['é-1.a_b', 'x']]],
  ['lists of blocks', 't = [{ a = 1 }, { a = 2 }]', [['t', [[['a', 1]], [['a', 2]]]]]],
  [
    'JSON',
    '{"vault": {"address": "https:\\/\\/v"}, "t": [{"a": null}, {"a": 0.5}]}',
    [
      ['vault', [['address', 'https://v']]],
      ['t', [[['a', null]], [['a', 0.5]]]],
    ],
  ],
  ['an empty file', ' \n# nothing\n', []],
]

for (const [what, text, expected] of READINGS) test(`HCL: ${what}`, () => assert.deepEqual(read(text), expected))

/** All of them are errors of hashicorp/hcl, too, but for the one that is given twice, which Vault 1.21 refuses by itself. */
const COMPLAINTS: readonly (readonly [string, string, string])[] = [
  [
    'a text without end',
    'vault {\n  address = "x\n}\n',
    'agent.hcl:2:13: this text has no end on its line; write \\n, or a heredoc such as <<EOT',
  ],
  ['a value that is missing', 'vault {\n  address =\n}\n', 'agent.hcl:3:1: expected a value, not }'],
  ['a text without quotes', 'level = info\n', 'agent.hcl:1:9: expected a value, not info; texts need quotes'],
  ['a block without end', 'vault {\n  a = 1\n', 'agent.hcl:3:1: expected a name, not the end of the file'],
  ['a brace too many', 'a = 1\n}\n', 'agent.hcl:2:1: expected a name, not }'],
  [
    'a heredoc without end',
    'a = <<EOT\nx\n',
    'agent.hcl:1:5: this heredoc has no end: its word must stand alone on a later line, indented after <<-',
  ],
  ['a comment without end', 'a = 1 /* x', 'agent.hcl:1:7: this comment has no end'],
  ['a setting that is given twice', 'a = 1\na = 2\n', 'agent.hcl:2:1: a is given on line 1 already'],
  ['a setting without a value', 'a b = 1', 'agent.hcl:1:5: expected "=" or "{" after a b, not ='],
  ['a list without commas', 'a = ["x" "y"]', 'agent.hcl:1:10: expected "," or "]" in this list, not "y"'],
  [
    'an escape that is none',
    String.raw`a = "\q"`,
    'agent.hcl:1:5: holds a backslash that begins no escape; write \\\\',
  ],
  [
    'an octal number with a 9',
    'perms = 0690',
    'agent.hcl:1:9: 0690 begins with 0, so it is octal, and 8 and 9 are no digits of it',
  ],
  ['a character that means nothing', 'a ? 1', 'agent.hcl:1:3: unexpected "?"'],
]

for (const [what, text, expected] of COMPLAINTS)
  test(`HCL: ${what} is an error with its place`, () => assert.equal(complaint(text), expected))

test('HCL: broken JSON is an error with its place', () => {
  assert.match(complaint('{"a": 1,\n "b" 2}'), /^agent\.hcl:2:6: is no JSON: /)
})
