import com.dangdang.ddframe.job.util.config.ShardingItemParameters;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;

/**
 * Records how Elastic-Job 2.1.5 reads shardingItemParameters. Each input line is a text, four hex digits a character;
 * each output line repeats it and adds, after a TAB, "REFUSED", or for each item "item:value" with the value in hex,
 * separated by spaces. How to run it: tests/oracles/record_sharding.py.
 */
public class ShardingRecorder {
    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(line + "\t" + answer(line));
        }
    }

    private static String answer(String line) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < line.length(); i += 4) {
            text.append((char) Integer.parseInt(line.substring(i, i + 4), 16));
        }
        Map<Integer, String> items;
        try {
            items = new TreeMap<>(new ShardingItemParameters(text.toString()).getMap());
        } catch (RuntimeException refused) {
            return "REFUSED";
        }
        StringBuilder found = new StringBuilder();
        for (Map.Entry<Integer, String> item : items.entrySet()) {
            found.append(item.getKey()).append(':');
            for (char letter : item.getValue().toCharArray()) {
                found.append(String.format("%04x", (int) letter));
            }
            found.append(' ');
        }
        return found.toString().trim();
    }
}
