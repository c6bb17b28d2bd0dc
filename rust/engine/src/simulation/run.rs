//! A simulation from its first request to its last.

use headgate_core::error::Result;

use super::arrivals::{ArrivalTimes, Choice, Random};
use super::question::BatchSimulation;
use super::server::Server;
use super::times::SimulatedTimes;

impl BatchSimulation {
    /// Simulates it.
    ///
    /// # Errors
    /// `invalid_argument` for values that cannot be.
    pub fn run(&self) -> Result<SimulatedTimes> {
        self.check()?;
        let before = self.requests / 10;
        let mut rows = Choice::new(&self.rows, Random::new(self.seed, 1));
        let arrivals = ArrivalTimes::new(self.arrivals, self.rate, Random::new(self.seed, 2));
        let mut server = Server::new(self, Random::new(self.seed, 3));
        for (at, arrival_ns) in (0..before + self.requests).zip(arrivals) {
            if at == before {
                server.measure_from(arrival_ns);
            }
            server.arrive(arrival_ns, rows.draw());
        }
        Ok(server.finish())
    }
}
