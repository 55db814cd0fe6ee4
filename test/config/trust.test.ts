import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { load, PEM, problemsOf, withOutputs } from './support.ts'

interface Trust {
  readonly crls?: string
  readonly outputs?: string
  readonly rest?: string
}

const LISTS = '[{ kind: file, file: /crl.pem }]'
const trustOf = ({ crls = '[]', outputs = PEM, rest = '' }: Trust) => `trust:
  - name: peers
    anchors: [{ kind: file, file: /ca.pem }]
    crls: ${crls}
    outputs: ${outputs}
${rest}`
/** Problems without their place in the file, and without the value that was found. */
const troubles = (text: string) =>
  problemsOf(text).map((line) => line.replace(/^\S+ +/, '').replace(/ \(found ".*"\)$/, ''))

/** By what is wrong: the trust, and each problem from the start. */
const WRONG: Readonly<Record<string, readonly [Trust, ...string[]]>> = {
  'a password that is missing': [
    { outputs: '[{ kind: pkcs12, directory: /t }]' },
    'trust[0].outputs[0].passwordFile: is required',
  ],
  'a password in a file by a relative path': [
    { outputs: '[{ kind: pkcs12, directory: /t, passwordFile: pw }]' },
    'trust[0].outputs[0].passwordFile: must be an absolute path',
  ],
  'an option of the key store at a trust store': [
    { outputs: '[{ kind: pkcs12, directory: /t, passwordFile: /pw, alias: a }]' },
    'trust[0].outputs[0].alias: unknown key',
  ],
  'an output that holds a key': [
    { outputs: '[{ kind: combined, directory: /t }]' },
    'trust[0].outputs[0].kind: unknown kind; known here: pem, crl, pkcs12',
  ],
  'a layout that names a certificate': [
    { outputs: '[{ kind: pem, directory: /t, layout: nginx-include }]' },
    'trust[0].outputs[0].layout: must be one of generation, flat',
  ],
  'the same name for lists and deltas': [
    { crls: LISTS, outputs: '[{ kind: crl, directory: /t, file: a, deltaFile: a }]' },
    'trust[0].outputs[0].deltaFile: names a file twice',
  ],
  'the same name in two outputs': [
    { outputs: '[{ kind: pem, directory: /t }, { kind: pkcs12, directory: /t, passwordFile: /pw, file: ca.crt }]' },
    'trust[0].outputs[1].directory: another output writes /t/ca.crt already',
  ],
  'a deltaFile that another output writes': [
    {
      crls: LISTS,
      outputs: '[{ kind: pem, directory: /t }, { kind: crl, directory: /t, deltaFile: ca.crt }]',
    },
    'trust[0].outputs[1].directory: another output writes /t/ca.crt already',
  ],
  'two layouts in one directory': [
    { outputs: '[{ kind: pem, directory: /t }, { kind: pem, directory: /t, file: b, layout: flat }]' },
    'trust[0].outputs[1].layout: differs from the layout "generation" of another output in /t',
  ],
  'an output of lists without a list': [
    { outputs: '[{ kind: crl, directory: /t }]' },
    'trust[0].outputs[0].kind: writes the lists of crls, and there are none',
  ],
  'lists that nothing writes': [{ crls: LISTS }, 'trust[0].crls: are written by no output: add one of kind crl'],
  'deltas that nothing writes': [
    {
      crls: '[{ kind: vault-pki, delta: true }]',
      outputs: '[{ kind: crl, directory: /t }]',
      rest: "vault: { address: 'https://v', auth: { kind: token, token: x } }\n",
    },
    'trust[0].crls[0].delta: is written by no output: name a deltaFile',
  ],
  'the directory of a certificate': [
    { rest: withOutputs(PEM) },
    'trust[0].outputs[0].directory: is the directory of certificate "web" already',
  ],
  'a directory within that of a certificate': [
    { outputs: '[{ kind: pem, directory: /tls/trust }]', rest: withOutputs(PEM) },
    'trust[0].outputs[0].directory: and /tls, the directory of certificate "web", are one within the other',
  ],
  'the name of a certificate': [
    { outputs: '[{ kind: pem, directory: /t }]', rest: withOutputs(PEM).replace('name: web', 'name: peers') },
    'trust[0].name: is the name of certificates[0] already',
  ],
  'a name that is not there': [
    { outputs: '[{ kind: pem, directory: /t }]', rest: withOutputs(PEM, '    trust: others\n') },
    'certificates[0].trust: names no trust "others"; there are: peers',
  ],
  'a directory outside volumes': [
    { rest: 'volumes: [/run/tls]\n' },
    'trust[0].outputs[0].directory: is outside volumes (/run/tls)',
  ],
}

describe('a trust in the config is refused with', () => {
  for (const [title, [trust, ...expected]] of Object.entries(WRONG))
    it(title, () => {
      const found = troubles(trustOf(trust))
      assert.equal(found.length, expected.length, found.join('\n'))
      for (const [index, start] of expected.entries()) assert.ok(found[index]?.startsWith(start), found[index])
    })

  it('nothing where lists, deltas and all forms lie side by side', () => {
    const outputs = `[{ kind: pem, directory: /t }, { kind: crl, directory: /t, deltaFile: d.pem }, { kind: pkcs12, directory: /t, passwordFile: /pw }]`
    const [peers] = load(trustOf({ crls: LISTS, outputs })).trust
    assert.equal(peers?.outputs.length, 3)
  })
})
