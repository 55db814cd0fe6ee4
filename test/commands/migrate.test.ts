import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { migrate } from '../../src/commands/migrate.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-migrate-command-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const place = (name: string, content: string): string => {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}
const WHOLE = place(
  'whole.hcl',
  `vault { address = "https://v:8200" vault_agent_token_file = "/run/t" }
template { contents = "{{ with secret \\"kv/app\\" }}{{ .Data.user }}{{ end }}" destination = "/secrets/a" perms = 0600 }`,
)
const LOSSY = place('lossy.hcl', `${readFileSync(WHOLE, 'utf8')}\nsyslog { enabled = true }\n`)

async function run(file: string, options: { output?: string; force?: boolean; tool?: string } = {}) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const io = {
    stdout,
    stderr,
    env: {},
    self: [],
    signal: new AbortController().signal,
    onHangup: () => {},
    process,
    releaseSignals: () => process,
  }
  const { tool = 'consul-template', output, force = false } = options
  const code = await migrate(tool, file, { output, force }, io)
  stdout.end()
  stderr.end()
  return { code, out: await text(stdout), err: await text(stderr) }
}

test('where all has an equivalent, the config is on standard output and the exit code is 0', async () => {
  const { code, out, err } = await run(WHOLE)
  assert.equal(code, 0)
  assert.match(out, /^# From .*whole\.hcl of consul-template\..*\n# Run it with: certferry run -c FILE\nvault:\n/)
  assert.match(err, /^certferry: all of it has an equivalent/)
})

test('what has no equivalent is listed with its line, and the exit code is 1', async () => {
  const { code, out, err } = await run(LOSSY)
  assert.equal(code, 1)
  assert.match(err, /lossy\.hcl: line 3: syslog: the log goes to standard output/)
  assert.match(err, /certferry: 1 setting without an equivalent/)
  assert.match(out, /\n# What has no equivalent:\n#\n# - line 3: syslog: /)
})

test('a file that is there is replaced only by force, whole and for nobody else to read', async () => {
  const output = place('there.yaml', 'mine')
  await assert.rejects(run(WHOLE, { output }), {
    code: 'USAGE',
    message: `${output} is there already; --force replaces it`,
  })
  assert.equal(readFileSync(output, 'utf8'), 'mine')
  const { code, out } = await run(WHOLE, { output, force: true })
  assert.deepEqual([code, out], [0, ''])
  assert.match(readFileSync(output, 'utf8'), /^vault:$/m)
  assert.equal(statSync(output).mode & 0o777, 0o600)
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('there.yaml')),
    ['there.yaml'],
  )
})

test('a file that is not there, or cannot be read, is an error with its place', async () => {
  await assert.rejects(run(join(folder, 'none')), { code: 'USAGE', message: /cannot read .*none \(ENOENT\)/ })
  await assert.rejects(run(place('bad.hcl', 'vault {\n  address = "x\n}\n')), {
    code: 'USAGE',
    message: /bad\.hcl:2:13: this text has no end/,
  })
  await assert.rejects(run(place('odd.hcl', 'vault {\n  retry = 1\n  address = []\n}\n')), {
    code: 'USAGE',
    message: /odd\.hcl:3:3: address must be a single value/,
  })
  await assert.rejects(run(WHOLE, { output: join(folder, 'no/such') }), {
    code: 'USAGE',
    message: /cannot write .*ENOENT/,
  })
})
