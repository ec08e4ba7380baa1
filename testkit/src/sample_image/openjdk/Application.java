import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.KeyPairGenerator;
import java.security.MessageDigest;
import java.security.Signature;
import java.text.NumberFormat;
import java.time.ZonedDateTime;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.time.format.FormatStyle;
import java.util.HexFormat;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.logging.Logger;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.zip.GZIPInputStream;
import java.util.zip.GZIPOutputStream;
import javax.crypto.Cipher;
import javax.crypto.KeyGenerator;
import javax.net.ssl.SSLContext;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.transform.TransformerFactory;
import javax.xml.transform.dom.DOMSource;
import javax.xml.transform.stream.StreamResult;

/** Serves HTTP, asks itself over loopback with what the class library has to offer, and says that it is ready. */
public final class Application {
    public static void main(String[] arguments) throws Exception {
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/digest", exchange -> {
            try (exchange) {
                var answer = digest(exchange.getRequestBody().readAllBytes()).getBytes(StandardCharsets.UTF_8);
                exchange.sendResponseHeaders(200, answer.length);
                exchange.getResponseBody().write(answer);
            }
        });
        server.start();

        var document = CompletableFuture.supplyAsync(Application::document);
        var sealed = CompletableFuture.supplyAsync(Application::sealed);
        var text = document.get() + sealed.get() + report();
        var uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/digest");
        var request = HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString(text)).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (!answer.body().equals(digest(text.getBytes(StandardCharsets.UTF_8)))) {
            throw new IllegalStateException(answer.body());
        }
        Logger.getLogger("application").info(SSLContext.getDefault().getProtocol());
        System.out.println("ready");
        server.stop(0);
        System.exit(0);
    }

    private static String digest(byte[] bytes) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private static String document() {
        try {
            var xml = "<orders><order id='1'>tea</order><order id='2'>rice</order></orders>";
            var parsed = DocumentBuilderFactory.newInstance().newDocumentBuilder()
                .parse(new ByteArrayInputStream(xml.getBytes(StandardCharsets.UTF_8)));
            var written = new ByteArrayOutputStream();
            TransformerFactory.newInstance().newTransformer()
                .transform(new DOMSource(parsed), new StreamResult(written));
            var packed = new ByteArrayOutputStream();
            try (var gzip = new GZIPOutputStream(packed)) {
                gzip.write(written.toByteArray());
            }
            return new String(new GZIPInputStream(new ByteArrayInputStream(packed.toByteArray())).readAllBytes(),
                StandardCharsets.UTF_8);
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private static String sealed() {
        try {
            var key = KeyGenerator.getInstance("AES").generateKey();
            var cipher = Cipher.getInstance("AES/GCM/NoPadding");
            cipher.init(Cipher.ENCRYPT_MODE, key);
            var sealed = cipher.doFinal("a secret".getBytes(StandardCharsets.UTF_8));
            var pair = KeyPairGenerator.getInstance("EC").generateKeyPair();
            var signature = Signature.getInstance("SHA256withECDSA");
            signature.initSign(pair.getPrivate());
            signature.update(sealed);
            return HexFormat.of().formatHex(signature.sign());
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private static String report() throws Exception {
        var words = Pattern.compile("\\W+").splitAsStream("a rose is a rose is a rose")
            .collect(Collectors.groupingBy(word -> word, Collectors.counting()));
        var factorial = IntStream.rangeClosed(1, 200).mapToObj(BigInteger::valueOf)
            .reduce(BigInteger.ONE, BigInteger::multiply);
        var when = DateTimeFormatter.ofLocalizedDateTime(FormatStyle.LONG).withLocale(Locale.GERMANY)
            .format(ZonedDateTime.of(2026, 1, 2, 3, 4, 5, 0, ZoneId.of("Europe/Berlin")));
        var file = Files.createTempFile("report", ".txt");
        Files.writeString(file, words + when + NumberFormat.getInstance(Locale.FRANCE).format(factorial));
        var report = Files.readString(file);
        Files.delete(file);
        return report;
    }
}
