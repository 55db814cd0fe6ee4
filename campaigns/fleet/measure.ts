import { createCsr } from '../../src/core/csr.ts'
import { generateKey } from '../../src/core/key.ts'
import { startVault } from '../../test/support/vault.ts'

const WARM_UP = 50
const AT_A_TIME = 8

/** How many P-256 certificates a real Vault on this machine signs in a second, by its own audit log. */
export async function measureSigns(count: number): Promise<number> {
  await using vault = await startVault()
  await vault.setupPki()
  const key = await generateKey('ecdsa-p256')
  const csr = await createCsr({ commonName: undefined, dns: ['web.example.com'], ip: [], uri: [], email: [] }, key)
  const sign = () => vault.api('POST', 'pki/sign/web', { common_name: 'web.example.com', csr })
  for (let done = 0; done < WARM_UP; done++) await sign()
  let left = count
  const work = async () => {
    while (left-- > 0) await sign()
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, work))
  const times = (await vault.audited()).filter(({ path }) => path === 'pki/sign/web').slice(WARM_UP)
  const [first, last] = [times[0]?.at ?? 0, times.at(-1)?.at ?? 0]
  return ((times.length - 1) * 1000) / (last - first)
}
