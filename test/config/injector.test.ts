import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { load, PEM, problemsOf, withMore, withOutputs, withSource } from './support.ts'

const injector = (more: string) => withOutputs(PEM, `injector: { image: 'certferry:0.1.0', ${more} }\n`)

describe('injector', () => {
  test('has defaults for all but certificate and image', () => {
    assert.deepEqual(load(injector('certificate: web')).injector, {
      listen: '0.0.0.0:8443',
      certificate: 'web',
      image: 'certferry:0.1.0',
      nativeSidecars: 'auto',
      vaultAnnotations: false,
      defaults: {},
    })
  })

  test('is not there unless given', () => {
    assert.equal(load(withMore('')).injector, undefined)
  })

  const refused: Readonly<Record<string, readonly [config: string, problem: string]>> = {
    'a certificate that is not there': [
      injector('certificate: wed'),
      'c.yaml:5:52  injector.certificate: names none of certificates; there are: web (found "wed")',
    ],
    'a certificate without an output of kind pem': [
      withOutputs(
        '[{ kind: combined, directory: /tls }]',
        "injector: { image: 'certferry:0.1.0', certificate: web }\n",
      ),
      'c.yaml:5:52  injector.certificate: names "web", which has no output of kind pem',
    ],
    'nativeSidecars that is neither': [
      injector('certificate: web, nativeSidecars: maybe'),
      'c.yaml:5:73  injector.nativeSidecars: must be auto, true or false (found "maybe")',
    ],
    'an address without a port': [
      injector('certificate: web, listen: localhost'),
      "c.yaml:5:65  injector.listen: must be host:port, such as '127.0.0.1:9443' or '[::]:9443' (found \"localhost\")",
    ],
    'a default that is no text': [
      injector('certificate: web, defaults: { metrics-port: 9443 }'),
      'c.yaml:5:83  injector.defaults.metrics-port: must be text, not a number (found 9443)',
    ],
  }
  for (const [what, [config, problem]] of Object.entries(refused))
    test(`refuses ${what}`, () => {
      assert.deepEqual(problemsOf(config), [problem])
    })
})

describe('dev-ca', () => {
  const EITHER = 'certificates[0].source: needs either directory or secret, to keep the CA in'
  const refused: Readonly<Record<string, readonly [source: string, problem: string]>> = {
    'neither a directory nor a Secret': ['{ kind: dev-ca, commonName: a.example }', EITHER],
    'both a directory and a Secret': ['{ kind: dev-ca, directory: /ca, secret: ca, commonName: a.example }', EITHER],
    'a Secret that no Secret can be called': [
      '{ kind: dev-ca, secret: CA_1, commonName: a.example }',
      'certificates[0].source.secret: must be a name of a-z, 0-9, "-" and ".", as Kubernetes names are (found [secret])',
    ],
  }
  for (const [what, [source, problem]] of Object.entries(refused))
    test(`refuses ${what}`, () => {
      assert.deepEqual(
        problemsOf(withSource(source)).map((line) => line.replace(/^\S+\s+/, '')),
        [problem],
      )
    })
})
