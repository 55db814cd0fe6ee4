import java.io.FileInputStream;
import java.util.Properties;

/** Prints what Properties.load finds in a file: key, blank and value of each line as UTF-16 code units in hex. */
class PropertiesToHex {
  public static void main(String[] arguments) throws Exception {
    Properties properties = new Properties();
    try (FileInputStream file = new FileInputStream(arguments[0])) {
      properties.load(file);
    }
    StringBuilder text = new StringBuilder();
    for (String key : properties.stringPropertyNames())
      text.append(hex(key)).append(' ').append(hex(properties.getProperty(key))).append('\n');
    System.out.print(text);
  }

  private static String hex(String text) {
    StringBuilder hex = new StringBuilder();
    for (char unit : text.toCharArray()) hex.append(String.format("%04x", (int) unit));
    return hex.toString();
  }
}
