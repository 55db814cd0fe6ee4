import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedKeyManager;

/** An HTTPS server of the JDK whose certificate follows a PKCS#12 file. PORT, KEY_STORE and PASSWORD_FILE are in its environment. */
public final class Main {
  public static void main(String[] args) throws Exception {
    FollowingKeyManager keys =
        new FollowingKeyManager(Path.of(System.getenv("KEY_STORE")), Path.of(System.getenv("PASSWORD_FILE")));
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(new KeyManager[] {keys}, null, null);
    InetSocketAddress address =
        new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(System.getenv("PORT")));
    HttpsServer server = HttpsServer.create(address, 0);
    server.setHttpsConfigurator(new HttpsConfigurator(context));
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext("/", exchange -> {
      byte[] hello = "hello from Java\n".getBytes(StandardCharsets.UTF_8);
      exchange.sendResponseHeaders(200, hello.length);
      exchange.getResponseBody().write(hello);
      exchange.close();
    });
    server.start();
    Executors.newSingleThreadScheduledExecutor(run -> {
      Thread thread = new Thread(run, "certificate");
      thread.setDaemon(true);
      return thread;
    }).scheduleWithFixedDelay(keys::look, 200, 200, TimeUnit.MILLISECONDS);
    System.out.println("listening on " + address.getPort());
  }

  /**
   * A key manager whose key store may change. Key and chain of a handshake come from one store, whatever happens meanwhile: the alias says
   * which. A store that does not load leaves the last one in use.
   */
  static final class FollowingKeyManager extends X509ExtendedKeyManager {
    private record Loaded(long number, byte[] content, X509ExtendedKeyManager keys) {}

    private final Path store;
    private final Path passwordFile;
    private volatile Loaded now;
    private volatile Loaded before;

    FollowingKeyManager(Path store, Path passwordFile) throws GeneralSecurityException, IOException {
      this.store = store;
      this.passwordFile = passwordFile;
      now = load(1, Files.readAllBytes(store));
      before = now;
    }

    /** The file is small and in memory: its content says for certain whether it changed, which its time does not. */
    void look() {
      try {
        byte[] content = Files.readAllBytes(store);
        if (Arrays.equals(content, now.content)) return;
        Loaded next = load(now.number + 1, content);
        before = now;
        now = next;
        System.out.println("took the new certificate");
      } catch (GeneralSecurityException | IOException error) {
        System.out.println("keeps the old certificate: " + error.getMessage());
      }
    }

    private Loaded load(long number, byte[] content) throws GeneralSecurityException, IOException {
      char[] password = Files.readString(passwordFile).strip().toCharArray();
      KeyStore keyStore = KeyStore.getInstance("PKCS12");
      keyStore.load(new ByteArrayInputStream(content), password);
      KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX");
      factory.init(keyStore, password);
      Arrays.fill(password, '\0');
      for (KeyManager each : factory.getKeyManagers())
        if (each instanceof X509ExtendedKeyManager keys) return new Loaded(number, content, keys);
      throw new GeneralSecurityException("no key in " + store);
    }

    /** An alias is remembered between the choice of a certificate and its use; so it names the store as well. */
    private static String mark(Loaded loaded, String alias) {
      return alias == null ? null : loaded.number + ":" + alias;
    }

    private X509ExtendedKeyManager keysOf(String marked) {
      long number = Long.parseLong(marked.substring(0, marked.indexOf(':')));
      Loaded current = now;
      return (current.number == number ? current : before).keys;
    }

    private static String aliasOf(String marked) {
      return marked.substring(marked.indexOf(':') + 1);
    }

    @Override
    public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
      Loaded current = now;
      return mark(current, current.keys.chooseEngineServerAlias(type, issuers, engine));
    }

    @Override
    public String chooseEngineClientAlias(String[] types, Principal[] issuers, SSLEngine engine) {
      Loaded current = now;
      return mark(current, current.keys.chooseEngineClientAlias(types, issuers, engine));
    }

    @Override
    public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
      Loaded current = now;
      return mark(current, current.keys.chooseServerAlias(type, issuers, socket));
    }

    @Override
    public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
      Loaded current = now;
      return mark(current, current.keys.chooseClientAlias(types, issuers, socket));
    }

    @Override
    public X509Certificate[] getCertificateChain(String marked) {
      return keysOf(marked).getCertificateChain(aliasOf(marked));
    }

    @Override
    public PrivateKey getPrivateKey(String marked) {
      return keysOf(marked).getPrivateKey(aliasOf(marked));
    }

    @Override
    public String[] getServerAliases(String type, Principal[] issuers) {
      Loaded current = now;
      String[] aliases = current.keys.getServerAliases(type, issuers);
      return aliases == null ? null : Arrays.stream(aliases).map(alias -> mark(current, alias)).toArray(String[]::new);
    }

    @Override
    public String[] getClientAliases(String type, Principal[] issuers) {
      Loaded current = now;
      String[] aliases = current.keys.getClientAliases(type, issuers);
      return aliases == null ? null : Arrays.stream(aliases).map(alias -> mark(current, alias)).toArray(String[]::new);
    }
  }
}
