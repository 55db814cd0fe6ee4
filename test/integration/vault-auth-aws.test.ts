import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createVault } from '../../src/vault/client.ts'
import { type AwsIdentity, callerIdentity } from '../support/aws.ts'
import { skipReason } from '../support/components.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { startVault, type TestVault } from '../support/vault.ts'
import { failure, forever, recorder, vaultOptions } from '../vault/support.ts'

const skip = await skipReason('vault', 'vault-plugin-auth-aws')

const ACCOUNT = 'arn:aws:iam::123456789012'
const USER: AwsIdentity = { accessKeyId: 'AKIAUSER', secretAccessKey: 'key-of-user', arn: `${ACCOUNT}:user/app` }
const ROLE: AwsIdentity = {
  accessKeyId: 'ASIAROLE',
  secretAccessKey: 'key-of-role',
  sessionToken: 'session-token-of-role/+==',
  arn: 'arn:aws:sts::123456789012:assumed-role/web/i-0123',
}

describe('logging in to a real Vault as a principal of AWS', { skip }, () => {
  let server: TestVault
  let sts: FaultProxy
  before(async () => {
    sts = await startFaultProxy(callerIdentity([USER, ROLE]))
    server = await startVault({ authPlugins: ['aws'] })
    await server.api('POST', 'sys/auth/aws', { type: 'aws' })
    await server.api('POST', 'auth/aws/config/client', {
      sts_endpoint: sts.address,
      sts_region: 'eu-north-1',
      iam_server_id_header_value: 'vault.example.com',
      max_retries: 0,
    })
    for (const [name, principal] of [
      ['app', `${ACCOUNT}:user/app`],
      ['web', `${ACCOUNT}:role/web`],
    ])
      await server.api('POST', `auth/aws/role/${name}`, {
        auth_type: 'iam',
        bound_iam_principal_arn: principal,
        resolve_aws_unique_ids: false,
        token_policies: [name],
      })
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await sts?.[Symbol.asyncDispose]()
  })

  const open = (env: Record<string, string>, more: object = {}) => {
    const auth = { kind: 'aws', serverId: 'vault.example.com', region: 'eu-north-1', stsAddress: sts.address, ...more }
    return createVault(vaultOptions(server.address, { auth }), { ...recorder().deps, env })
  }
  const keysOf = ({ accessKeyId, secretAccessKey, sessionToken }: AwsIdentity) => ({
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    ...(sessionToken !== undefined && { AWS_SESSION_TOKEN: sessionToken }),
  })

  test('has the policies of the role that binds the user, or the assumed role', async () => {
    for (const [identity, role] of [
      [USER, 'app'],
      [ROLE, 'web'],
    ] as const)
      for (const more of [{ role }, {}]) {
        await using vault = open(keysOf(identity), more)
        assert.deepEqual((await vault.lookupSelf(forever))?.policies, ['default', role].sort())
      }
  })

  test('is told why Vault refuses: another role, a wrong key, another header than Vault wants', async () => {
    const rows = [
      [
        keysOf(USER),
        { role: 'web' },
        /IAM Principal "arn:aws:iam::123456789012:user\/app" does not belong to the role/,
      ],
      [{ ...keysOf(USER), AWS_SECRET_ACCESS_KEY: 'wrong-key' }, {}, /403.*SignatureDoesNotMatch/],
      [
        keysOf(USER),
        { serverId: 'other.example.com' },
        /expected .*vault\.example\.com.* but got .*other\.example\.com/,
      ],
      [keysOf(USER), { serverId: undefined }, /missing header/],
      [keysOf(USER), { mount: 'nosuch' }, /no handler for route|permission denied/],
    ] as const
    for (const [env, more, told] of rows) {
      await using vault = open(env, more)
      const { code, message } = await failure(vault.lookupSelf(forever))
      assert.equal(code, 'AUTH_FAILED')
      assert.match(message, told)
      assert.match(message, /; signed by AKIAUSER, of the environment$/)
      assert.doesNotMatch(message, /wrong-key|key-of-user/)
    }
  })
})
