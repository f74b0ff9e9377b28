import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.text.ParseException;
import java.util.Date;
import java.util.TimeZone;
import org.quartz.CronExpression;

/**
 * Records what Quartz itself answers. Each input line is "expression TAB zone TAB start-second TAB count"; each output
 * line repeats it and adds, after a TAB, the next fire times in seconds, space separated. "END" stands where Quartz gives
 * no more, "BROKEN" where it throws while computing, "REFUSED" where it does not accept the expression. How to run it:
 * tests/oracles/record_quartz.py.
 */
public class QuartzRecorder {
    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(line + "\t" + answer(line.split("\t")));
        }
    }

    private static String answer(String[] question) {
        CronExpression expression;
        try {
            expression = new CronExpression(question[0]);
        } catch (ParseException | RuntimeException refused) {
            return "REFUSED";
        }
        expression.setTimeZone(TimeZone.getTimeZone(question[1]));
        Date at = new Date(Long.parseLong(question[2]) * 1000);
        StringBuilder times = new StringBuilder();
        for (int i = 0; i < Integer.parseInt(question[3]); i++) {
            try {
                at = expression.getNextValidTimeAfter(at);
            } catch (RuntimeException broken) {
                return times.append("BROKEN").toString();
            }
            if (at == null || at.getTime() / 1000 > 4102444800L) {
                return times.append("END").toString();
            }
            times.append(at.getTime() / 1000).append(' ');
        }
        return times.toString().trim();
    }
}
